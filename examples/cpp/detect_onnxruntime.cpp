// Objects in an image, found by an exported detector in ONNX Runtime; no other part of this project is used.
//     make detect_onnxruntime; ./detect_onnxruntime best.onnx image.jpg [confidence 0.25] [overlap 0.45]
// A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image.
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <algorithm>
#include <cmath>
#include <onnxruntime_cxx_api.h>  // <array>, <cstdio>, <string>, <vector> too
#include <regex>

using Box = std::array<float, 4>;  // left, top, right, bottom
struct Object { int kind; float score; Box box; };

std::tuple<int, int, float> between(int at, int size, int side) {  // two pixels of the image, the share of the second
    const float place = std::clamp((at + 0.5f) * side / size - 0.5f, 0.0f, side - 1.0f);
    return {int(place), std::min(int(place) + 1, side - 1), place - int(place)};
}

bool same(const Object& one, const Object& other, float iou) {  // of one class, and intersection over union above iou
    const auto area = [](const Box& box) { return std::max(box[2] - box[0], 0.0f) * std::max(box[3] - box[1], 0.0f); };
    const auto &a = one.box, &b = other.box;
    const float both = area({std::max(a[0], b[0]), std::max(a[1], b[1]), std::min(a[2], b[2]), std::min(a[3], b[3])});
    return one.kind == other.kind && both > iou * (area(a) + area(b) - both);
}

int main(int count, char** words) try {
    if (count < 3) throw std::runtime_error("usage: detect_onnxruntime MODEL IMAGE [CONFIDENCE] [OVERLAP]");
    const float conf = count > 3 ? std::stof(words[3]) : 0.25f, iou = count > 4 ? std::stof(words[4]) : 0.45f;
    int width, height;
    const stbi_uc* pixels = stbi_load(words[2], &width, &height, nullptr, 3);  // RGB; lives as long as the program
    if (!pixels) throw std::runtime_error(std::string(words[2]) + ": not a readable image");
    Ort::Env environment;
    Ort::Session session(environment, words[1], Ort::SessionOptions());
    Ort::AllocatorWithDefaultOptions memory;
    const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // 1, 3, rows, columns
    if (*std::min_element(shape.begin(), shape.end()) < 1 || session.GetOutputCount() > 1)
        throw std::runtime_error("export without --dynamic, --nms");
    const auto metadata = session.GetModelMetadata();
    const std::string said = metadata.LookupCustomMetadataMapAllocated("names", memory).get();  // {0: 'car', 1: ...}
    const float grey = std::stof(metadata.LookupCustomMetadataMapAllocated("pad_value", memory).get()) / 255;
    const int rows = shape[2], columns = shape[3];
    std::vector<float> grid(3 * rows * columns, grey);
    const double ratio = std::min(double(rows) / height, double(columns) / width);
    const int down = std::max(std::lrint(height * ratio), 1L), across = std::max(std::lrint(width * ratio), 1L);
    const int top = (rows - down) / 2, left = (columns - across) / 2;
    for (int place = 0; place < 3 * down * across; place++) {
        const int channel = place / (down * across), y = place / across % down, x = place % across;
        const auto [y0, y1, dy] = between(y, down, height);
        const auto [x0, x1, dx] = between(x, across, width);
        const stbi_uc *upper = pixels + y0 * width * 3 + channel, *lower = pixels + y1 * width * 3 + channel;
        const float first = upper[x0 * 3] * (1 - dy) + lower[x0 * 3] * dy;
        const float second = upper[x1 * 3] * (1 - dy) + lower[x1 * 3] * dy;
        grid[(channel * rows + top + y) * columns + left + x] = std::floor(first * (1 - dx) + second * dx + 0.5f) / 255;
    }
    auto tensor = Ort::Value::CreateTensor(memory.GetInfo(), grid.data(), grid.size(), shape.data(), shape.size());
    const char *from = "images", *to = "output0";
    const auto outputs = session.Run(Ort::RunOptions(), &from, &tensor, 1, &to, 1);
    const auto size = outputs[0].GetTensorTypeAndShapeInfo().GetShape();
    const float *row = outputs[0].GetTensorData<float>(), *end = row + size[1] * size[2];
    std::vector<Object> found, kept;
    for (; row < end; row += size[2]) {  // centre, size, objectness, class probabilities
        const float* best = std::max_element(row + 5, row + size[2]);
        const Box box{row[0] - row[2] / 2, row[1] - row[3] / 2, row[0] + row[2] / 2, row[1] + row[3] / 2};
        if (row[4] * *best > conf) found.push_back({int(best - row - 5), row[4] * *best, box});
    }
    std::stable_sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.score > b.score; });
    for (const Object& one : found)
        if (std::none_of(kept.begin(), kept.end(), [&](auto& two) { return same(one, two, iou); })) kept.push_back(one);
    for (const auto& [kind, score, box] : kept) {
        std::smatch name;
        std::regex_search(said, name, std::regex("\\b" + std::to_string(kind) + R"re(: (['"])(.*?)\1[,}])re"));
        std::printf("%s %.4f", std::regex_replace(name[2].str(), std::regex(R"(\\(.))"), "$1").c_str(), score);
        for (int n = 0; n < 4; n++) {
            const float side = n % 2 ? height : width, start = n % 2 ? top : left, scaled = n % 2 ? down : across;
            std::printf(n < 3 ? " %.2f" : " %.2f\n", std::clamp((box[n] - start) * side / scaled, 0.0f, side));
        }
    }
} catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
}
