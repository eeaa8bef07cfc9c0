// Calls one signature of an export from C++, by the loader that TensorFlow Serving is built on; there is no Python in it.
//
//   loader FOLDER SIGNATURE LIBRARY...    (libraries of operations: TensorFlow Text's)
//
// Reads an input from each line: its name, "string", "float", "int32" or "int64", its shape as "4" or "4x3", then its values. Writes the
// outputs in the same form. A string is written in hexadecimal, with an "x" in front of it.

#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/public/session.h"

using tensorflow::Tensor;
using tensorflow::TensorShape;

void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::exit(1);
}

std::string FromHex(const std::string& written) {
  std::string bytes;
  for (size_t i = 1; i + 1 < written.size(); i += 2) bytes += static_cast<char>(std::stoi(written.substr(i, 2), nullptr, 16));
  return bytes;
}

std::string ToHex(const std::string& bytes) {
  std::string written = "x";
  char digits[3];
  for (unsigned char byte : bytes) {
    std::snprintf(digits, sizeof digits, "%02x", byte);
    written += digits;
  }
  return written;
}

Tensor ReadTensor(std::istream& line) {
  std::string kind, written, value;
  line >> kind >> written;
  TensorShape shape;
  std::istringstream sizes(written);
  for (std::string size; std::getline(sizes, size, 'x');) shape.AddDim(std::stoll(size));
  tensorflow::DataType type;
  tensorflow::DataTypeFromString(kind, &type);
  Tensor tensor(type, shape);
  for (int64_t i = 0; i < tensor.NumElements() && line >> value; ++i) {
    if (kind == "string") tensor.flat<tensorflow::tstring>()(i) = FromHex(value);
    if (kind == "float") tensor.flat<float>()(i) = std::stof(value);
    if (kind == "int32") tensor.flat<int32_t>()(i) = std::stoi(value);
    if (kind == "int64") tensor.flat<int64_t>()(i) = std::stoll(value);
  }
  return tensor;
}

void WriteTensor(const std::string& name, const Tensor& tensor) {
  std::cout << name << ' ' << tensorflow::DataTypeString(tensor.dtype()) << ' ';
  for (int i = 0; i < tensor.dims(); ++i) std::cout << (i ? "x" : "") << tensor.dim_size(i);
  std::cout.precision(9);
  for (int64_t i = 0; i < tensor.NumElements(); ++i) {
    std::cout << ' ';
    switch (tensor.dtype()) {
      case tensorflow::DT_STRING: std::cout << ToHex(tensor.flat<tensorflow::tstring>()(i)); break;
      case tensorflow::DT_FLOAT: std::cout << tensor.flat<float>()(i); break;
      case tensorflow::DT_INT32: std::cout << tensor.flat<int32_t>()(i); break;
      case tensorflow::DT_BOOL: std::cout << tensor.flat<bool>()(i); break;
      default: Require(tensorflow::errors::Unimplemented(name));
    }
  }
  std::cout << '\n';
}

int main(int count, char** words) {
  for (int i = 3; i < count; ++i) {
    void* handle;
    Require(tensorflow::Env::Default()->LoadDynamicLibrary(words[i], &handle));
  }
  tensorflow::SavedModelBundle bundle;
  Require(tensorflow::LoadSavedModel({}, {}, words[1], {"serve"}, &bundle));
  const auto& signature = bundle.GetSignatures().at(words[2]);
  std::vector<std::pair<std::string, Tensor>> inputs;
  for (std::string line, name; std::getline(std::cin, line);) {
    std::istringstream parts(line);
    parts >> name;
    inputs.emplace_back(signature.inputs().at(name).name(), ReadTensor(parts));
  }
  std::vector<std::string> names, tensors;
  for (const auto& [name, info] : signature.outputs()) {
    names.push_back(name);
    tensors.push_back(info.name());
  }
  std::vector<Tensor> outputs;
  Require(bundle.session->Run(inputs, tensors, {}, &outputs));
  for (size_t i = 0; i < names.size(); ++i) WriteTensor(names[i], outputs[i]);
}
