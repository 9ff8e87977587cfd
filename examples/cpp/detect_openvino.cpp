// Objects in an image, found by a detector (.xml or .onnx) in OpenVINO; no other part of this project is used.
//     make detect_openvino; ./detect_openvino best_openvino_model/best.xml image.jpg [confidence 0.25] [overlap 0.45]
// A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image.
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <openvino/openvino.hpp>
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
    if (count < 3) throw std::runtime_error("usage: detect_openvino MODEL IMAGE [CONFIDENCE] [OVERLAP]");
    const float conf = count > 3 ? std::stof(words[3]) : 0.25f, iou = count > 4 ? std::stof(words[4]) : 0.45f;
    int width, height;
    const stbi_uc* pixels = stbi_load(words[2], &width, &height, nullptr, 3);  // RGB; lives as long as the program
    if (!pixels) throw std::runtime_error(std::string(words[2]) + ": not a readable image");
    ov::Core core;
    const auto model = core.read_model(words[1]);
    if (model->is_dynamic() || model->outputs().size() > 1) throw std::runtime_error("export without --dynamic, --nms");
    const auto said = model->get_rt_info<std::string>("framework", "names");  // {0: 'car', 1: "driver's seat"}
    const float grey = std::stof(model->get_rt_info<std::string>("framework", "pad_value")) / 255;
    // Where it may choose, it computes in bfloat16 on some processors, which moves the edges of large boxes.
    auto request = core.compile_model(model, "CPU", ov::hint::inference_precision("f32")).create_infer_request();
    ov::Tensor input = request.get_input_tensor();
    const int rows = input.get_shape()[2], columns = input.get_shape()[3];
    const double ratio = std::min(double(rows) / height, double(columns) / width);
    const int down = std::max(std::lrint(height * ratio), 1L), across = std::max(std::lrint(width * ratio), 1L);
    const int top = (rows - down) / 2, left = (columns - across) / 2;
    std::fill_n(input.data<float>(), input.get_size(), grey);
    for (int place = 0; place < 3 * down * across; place++) {
        const int channel = place / (down * across), y = place / across % down, x = place % across;
        const auto [y0, y1, dy] = between(y, down, height);
        const auto [x0, x1, dx] = between(x, across, width);
        const stbi_uc *upper = pixels + y0 * width * 3 + channel, *lower = pixels + y1 * width * 3 + channel;
        const float first = upper[x0 * 3] * (1 - dy) + lower[x0 * 3] * dy;
        const float second = upper[x1 * 3] * (1 - dy) + lower[x1 * 3] * dy;
        float& value = input.data<float>()[(channel * rows + top + y) * columns + left + x];
        value = std::floor(first * (1 - dx) + second * dx + 0.5f) / 255;
    }
    request.infer();
    const ov::Tensor output = request.get_output_tensor();  // rows: centre, size, objectness, class probabilities
    const float *row = output.data<float>(), *end = row + output.get_size();
    std::vector<Object> found, kept;
    for (const size_t step = output.get_shape()[2]; row < end; row += step) {
        const float* best = std::max_element(row + 5, row + step);
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
