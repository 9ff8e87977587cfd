// A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image; and the boxes drawn.
import * as ort from "onnxruntime-web";

function* fieldsOf(bytes) { // of a protobuf message: number and content of each that is no mere number
  let at = 0;
  const varint = (byte = bytes[at++]) => (byte < 128 ? byte : byte - 128 + 128 * varint());
  while (at < bytes.length) {
    const tag = varint(), size = [() => varint() * 0, () => 8, varint, , , () => 4][tag % 8]();
    if (tag % 8 === 2) yield [Math.floor(tag / 8), bytes.subarray(at, at + size)];
    at += size;
  }
}

function metadataOf(bytes) { // field 14 of the file, entries of a key and a value; onnxruntime-web does not give them
  const entries = [...fieldsOf(bytes)].filter(([number]) => number === 14).map(([, entry]) => [...fieldsOf(entry)]);
  return Object.fromEntries(entries.map((entry) => entry.map(([, text]) => new TextDecoder().decode(text))));
}

function letterboxed(image, height, width, grey) { // in the middle of a grey frame
  const ratio = Math.min(height / image.height, width / image.width);
  const [across, down] = [image.width, image.height].map((side) => Math.max(Math.round(side * ratio), 1));
  const [left, top] = [Math.floor((width - across) / 2), Math.floor((height - down) / 2)];
  const values = new Float32Array(3 * height * width).fill(grey / 255); // 0-1, (3, height, width)
  const between = (at, size, side) => { // two pixels of the image, and the share of the second
    const place = Math.min(Math.max(((at + 0.5) * side) / size - 0.5, 0), side - 1), first = Math.floor(place);
    return [first, Math.min(first + 1, side - 1), place - first];
  };
  for (let y = 0; y < down; y++)
    for (let x = 0; x < across; x++) {
      const [y0, y1, dy] = between(y, down, image.height), [x0, x1, dx] = between(x, across, image.width);
      for (let channel = 0; channel < 3; channel++) {
        const of = (row, column) => image.data[(row * image.width + column) * 4 + channel];
        const row = (at) => of(at, x0) * (1 - dx) + of(at, x1) * dx; // linear between pixels
        values[(channel * height + top + y) * width + left + x] = Math.round(row(y0) * (1 - dy) + row(y1) * dy) / 255;
      }
    }
  const along = (at, start, size, side) => Math.min(Math.max(((at - start) * side) / size, 0), side);
  const toImage = (at, n) => (n % 2 ? along(at, top, down, image.height) : along(at, left, across, image.width));
  return [values, toImage];
}

function suppressed({ data, dims: [, count, columns] }, conf, iou) { // rows: centre, size, objectness, probabilities
  const found = [], kept = [], area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);
  const shared = (a, b) => area(a.map((side, n) => (n < 2 ? Math.max(side, b[n]) : Math.min(side, b[n]))));
  const same = (a, b) => shared(a, b) > iou * (area(a) + area(b) - shared(a, b));
  for (let row = 0; row < count * columns; row += columns) {
    const [x, y, width, height, objectness, ...classes] = data.subarray(row, row + columns);
    const best = Math.max(...classes), box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
    if (objectness * best > conf) found.push({ kind: classes.indexOf(best), score: objectness * best, box });
  }
  for (const one of found.sort((a, b) => b.score - a.score))
    if (!kept.some((other) => other.kind === one.kind && same(other.box, one.box))) kept.push(one);
  return kept;
}

const element = (id) => document.getElementById(id), flags = new URLSearchParams(location.search);
const given = (id) => element(id).files[0] ?? (flags.has(id) ? fetch(flags.get(id)).then((file) => file.blob()) : null);
async function detect() {
  const [file, picture] = await Promise.all([given("model"), given("image")]);
  if (!file || !picture) return "Choose an ONNX file and an image.";
  const bytes = new Uint8Array(await file.arrayBuffer()), { names, pad_value: grey } = metadataOf(bytes);
  if (!names || !grey) throw Error("The metadata of the model lack names or pad_value: export it again.");
  const session = await ort.InferenceSession.create(bytes), [{ name, shape }] = session.inputMetadata;
  if (session.outputNames.length > 1 || !shape.every(Number.isInteger)) throw Error("Export without --nms, --dynamic.");
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" }), { width, height } = bitmap;
  const context = Object.assign(element("canvas"), { width, height }).getContext("2d");
  Object.assign(context, { strokeStyle: "red", lineWidth: 2 }).drawImage(bitmap, 0, 0);
  const [values, toImage] = letterboxed(context.getImageData(0, 0, width, height), ...shape.slice(2), Number(grey));
  const output = await session.run({ [name]: new ort.Tensor("float32", values, shape) });
  const kinds = [...names.matchAll(/\d+: (['"])(.*?)\1[,}]/g)].map(([, , kind]) => kind.replace(/\\(.)/g, "$1"));
  const [conf, iou] = [flags.get("conf") ?? 0.25, flags.get("iou") ?? 0.45];
  return suppressed(output[session.outputNames[0]], conf, iou).map(({ kind, score, box }) => {
    const [x1, y1, x2, y2] = box.map(toImage);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    return [kinds[kind], score.toFixed(4), ...[x1, y1, x2, y2].map((at) => at.toFixed(2))].join(" ");
  }).join("\n");
}
const show = () => detect().catch((error) => error.message).then((text) => (element("objects").textContent = text));
document.onchange = show;
show();
