#pragma once

#include "common/msg/codec.hpp"

namespace educloud::msg {

/// JSON Schema (2020-12) of a message, from its field list, so that proto/ cannot drift from the code.
template <class T>
nlohmann::json schema_of(const Rule& rule) {
  if constexpr (is_optional<T>::value) {
    return schema_of<typename T::value_type>(rule);
  } else if constexpr (Message<T>) {
    nlohmann::json schema{{"type", "object"}, {"properties", nlohmann::json::object()}};
    auto required = nlohmann::json::array();
    const auto add = [&](const auto& one) {
      using Member = std::decay_t<decltype(std::declval<T>().*(one.member))>;
      schema["properties"][std::string(one.name)] = schema_of<Member>(one.rule);
      if (one.required) required.push_back(one.name);
    };
    std::apply([&](const auto&... f) { (add(f), ...); }, T::fields());
    schema["required"] = required;
    return schema;
  } else if constexpr (is_vector<T>::value) {
    return {
        {"type", "array"}, {"maxItems", rule.max_size}, {"items", schema_of<typename T::value_type>(Rule{})}};
  } else if constexpr (std::is_same_v<T, bool>) {
    return {{"type", "boolean"}};
  } else if constexpr (std::is_same_v<T, std::string>) {
    nlohmann::json schema{{"type", "string"}};
    if (rule.one_of.empty()) {
      // The code bounds bytes, the schema code points: never stricter than the code.
      schema["maxLength"] = rule.max_size;
      if (rule.min_size > 0) schema["minLength"] = 1;
    } else {
      auto choices = nlohmann::json::array();
      for (std::string_view rest = rule.one_of; !rest.empty();) {
        const auto bar = rest.find('|');
        choices.push_back(rest.substr(0, bar));
        rest = bar == std::string_view::npos ? std::string_view{} : rest.substr(bar + 1);
      }
      schema["enum"] = choices;
    }
    return schema;
  } else {
    const double low = std::is_unsigned_v<T> && rule.min_value < 0 ? 0 : rule.min_value;
    return {{"type", std::is_integral_v<T> ? "integer" : "number"},
            {"minimum", low},
            {"maximum", rule.max_value}};
  }
}

}  // namespace educloud::msg
