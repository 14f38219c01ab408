#pragma once

#include <string>

#include "common/msg/codec.hpp"

namespace educloud::clc::store {

/// A column that holds a message struct as JSON; "{}" is its default, which most rows have.
template <msg::Message T>
T stored(const std::string& text) {
  if (text == "{}") return {};
  auto value = msg::parse<T>(text);
  return value ? std::move(*value) : T{};
}

template <msg::Message T>
std::string to_column(const T& value) {
  return value == T{} ? "{}" : msg::serialize(value);
}

}  // namespace educloud::clc::store
