#include "common/msg/codec.hpp"

#include <utility>

namespace educloud::msg {
namespace {

bool is_one_of(std::string_view value, std::string_view choices) {
  while (true) {
    const auto bar = choices.find('|');
    if (choices.substr(0, bar) == value) return true;
    if (bar == std::string_view::npos) return false;
    choices.remove_prefix(bar + 1);
  }
}

}  // namespace

tl::unexpected<Error> mistyped(const std::string& path, std::string_view wanted, const nlohmann::json& got) {
  return fail(ErrorCode::invalid_argument,
              "'" + path + "' must be " + std::string(wanted) + ", not " + got.type_name(), path);
}

tl::unexpected<Error> missing(const std::string& path) {
  return fail(ErrorCode::invalid_argument, "'" + path + "' is missing", path);
}

Result<> check_text(const nlohmann::json& json, const Rule& rule, const std::string& path) {
  if (!json.is_string()) return mistyped(path, "a string", json);
  const auto& value = json.get_ref<const std::string&>();
  if (value.size() < rule.min_size || value.size() > rule.max_size) {
    return fail(ErrorCode::invalid_argument,
                "'" + path + "' has " + std::to_string(value.size()) + " bytes, allowed are " +
                    std::to_string(rule.min_size) + " to " + std::to_string(rule.max_size),
                path);
  }
  if (!rule.one_of.empty() && !is_one_of(value, rule.one_of)) {
    return fail(ErrorCode::invalid_argument,
                "'" + path + "' is '" + value.substr(0, 60) + "', allowed are " + std::string(rule.one_of),
                path);
  }
  return {};
}

Result<> check_number(const nlohmann::json& json, const Rule& rule, bool integer, bool is_unsigned,
                      const std::string& path) {
  if (integer ? !json.is_number_integer() : !json.is_number()) {
    return mistyped(path, integer ? "an integer" : "a number", json);
  }
  const double value = json.get<double>();
  const double low = is_unsigned && rule.min_value < 0 ? 0 : rule.min_value;
  if (!(value >= low && value <= rule.max_value)) {
    return fail(ErrorCode::invalid_argument,
                "'" + path + "' is " + json.dump() + ", allowed are " +
                    std::to_string(static_cast<std::int64_t>(low)) + " to " +
                    std::to_string(static_cast<std::int64_t>(rule.max_value)),
                path);
  }
  return {};
}

Result<> check_list(const nlohmann::json& json, const Rule& rule, const std::string& path) {
  if (!json.is_array()) return mistyped(path, "a list", json);
  if (json.size() < rule.min_size || json.size() > rule.max_size) {
    return fail(ErrorCode::invalid_argument,
                "'" + path + "' has " + std::to_string(json.size()) + " entries, at most " +
                    std::to_string(rule.max_size) + " are allowed",
                path);
  }
  return {};
}

Result<nlohmann::json> parse_json(std::string_view text, std::size_t max_bytes) {
  if (text.size() > max_bytes) {
    return fail(ErrorCode::too_large, "JSON of " + std::to_string(text.size()) + " bytes; at most " +
                                          std::to_string(max_bytes) + " are allowed");
  }
  bool too_deep = false;
  const auto callback = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > limits::kJsonDepth;
    return !too_deep;
  };
  auto json = nlohmann::json::parse(text, callback, /*allow_exceptions=*/false);
  if (too_deep) {
    return fail(ErrorCode::invalid_argument,
                "JSON nested deeper than " + std::to_string(limits::kJsonDepth) + " levels");
  }
  if (json.is_discarded()) return fail(ErrorCode::invalid_argument, "not valid JSON");
  return json;
}

bool is_type(std::string_view wire, std::string_view type) {
  if (wire.find(type) == wire.npos) return false;
  const auto json = parse_json(wire);
  if (!json || !json->is_object()) return false;
  const auto at = json->find("type");
  return at != json->end() && at->is_string() && at->get_ref<const std::string&>() == type;
}

}  // namespace educloud::msg
