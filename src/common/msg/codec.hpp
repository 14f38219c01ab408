#pragma once

// A message is a struct whose fields are listed once:
//
//   struct Disk {
//     std::string file;
//     std::string mtype;
//     static constexpr auto fields() {
//       return std::make_tuple(field("file", &Disk::file, text(1, 256)), ...);
//     }
//   };
//
// to_json and from_json walk that list. Unknown keys are ignored; a missing, mistyped or
// out-of-bounds one is an Error whose `key` is its path ("runtime_option.disks[0].file").

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/limits.hpp"
#include "common/base/result.hpp"

namespace educloud::msg {

/// What a value must satisfy beyond its type.
struct Rule {
  std::size_t min_size = 0;  ///< bytes of a string, entries of a list
  std::size_t max_size = 4096;
  double min_value = -9.0e15;  ///< numbers; JSON integers stay exact below 2^53
  double max_value = 9.0e15;
  std::string_view one_of = {};  ///< "a|b|c": the only strings allowed; empty: any
};

constexpr Rule text(std::size_t min_size, std::size_t max_size) {
  return {.min_size = min_size, .max_size = max_size};
}
constexpr Rule choice(std::string_view values) {
  return {.one_of = values};
}
constexpr Rule range(double low, double high) {
  return {.min_value = low, .max_value = high};
}
constexpr Rule list(std::size_t most = limits::kListEntries) {
  return {.max_size = most};
}

template <class T, class M>
struct Field {
  std::string_view name;
  M T::*member;
  Rule rule;
  bool required;
};

/// A key that must be present.
template <class T, class M>
constexpr Field<T, M> field(std::string_view name, M T::*member, Rule rule = {}) {
  return {name, member, rule, true};
}
/// A key that may be missing: the member keeps its default.
template <class T, class M>
constexpr Field<T, M> option(std::string_view name, M T::*member, Rule rule = {}) {
  return {name, member, rule, false};
}

template <class T>
concept Message = requires {
  T::fields();
};

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};
template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};

template <class T>
nlohmann::json encode(const T& value) {
  if constexpr (Message<T>) {
    auto json = nlohmann::json::object();
    std::apply(
        [&](const auto&... f) {
          const auto put = [&](const auto& one) {
            const auto& member = value.*(one.member);
            if constexpr (is_optional<std::decay_t<decltype(member)>>::value) {
              if (member) json[std::string(one.name)] = encode(*member);
            } else {
              json[std::string(one.name)] = encode(member);
            }
          };
          (put(f), ...);
        },
        T::fields());
    return json;
  } else if constexpr (is_vector<T>::value) {
    auto json = nlohmann::json::array();
    for (const auto& one : value) json.push_back(encode(one));
    return json;
  } else {
    return value;
  }
}

/// Checks one string, number or list against its rule. Not a template, so the texts exist once.
Result<> check_text(const nlohmann::json& json, const Rule& rule, const std::string& path);
Result<> check_number(const nlohmann::json& json, const Rule& rule, bool integer, bool is_unsigned,
                      const std::string& path);
Result<> check_list(const nlohmann::json& json, const Rule& rule, const std::string& path);
tl::unexpected<Error> mistyped(const std::string& path, std::string_view wanted, const nlohmann::json& got);
tl::unexpected<Error> missing(const std::string& path);

template <class T>
Result<> decode(const nlohmann::json& json, T& out, const Rule& rule, const std::string& path) {
  if constexpr (Message<T>) {
    if (!json.is_object()) return mistyped(path, "an object", json);
    Result<> result;
    const auto take = [&](const auto& one) {
      if (!result) return;
      const std::string key = path.empty() ? std::string(one.name) : path + "." + std::string(one.name);
      const auto at = json.find(one.name);
      if (at == json.end()) {
        if (one.required) result = missing(key);
        return;
      }
      result = decode(*at, out.*(one.member), one.rule, key);
    };
    std::apply([&](const auto&... f) { (take(f), ...); }, T::fields());
    return result;
  } else if constexpr (is_optional<T>::value) {
    if (json.is_null()) return {};
    return decode(json, out.emplace(), rule, path);
  } else if constexpr (is_vector<T>::value) {
    if (auto ok = check_list(json, rule, path); !ok) return ok;
    out.clear();
    out.reserve(json.size());
    for (std::size_t i = 0; i < json.size(); ++i) {
      auto ok = decode(json[i], out.emplace_back(), Rule{}, path + "[" + std::to_string(i) + "]");
      if (!ok) return ok;
    }
    return {};
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) return mistyped(path, "true or false", json);
    out = json.get<bool>();
    return {};
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (auto ok = check_text(json, rule, path); !ok) return ok;
    out = json.get_ref<const std::string&>();
    return {};
  } else {
    static_assert(std::is_arithmetic_v<T>, "a message field is a string, number, bool, list or message");
    auto ok = check_number(json, rule, std::is_integral_v<T>, std::is_unsigned_v<T>, path);
    if (!ok) return ok;
    if constexpr (std::is_integral_v<T>) {
      // The rule's bounds are doubles; the type's own are checked on the exact integer.
      const bool fits = json.is_number_unsigned() ? std::in_range<T>(json.get<std::uint64_t>())
                                                  : std::in_range<T>(json.get<std::int64_t>());
      if (!fits) return fail(ErrorCode::invalid_argument, "'" + path + "' does not fit its type", path);
    }
    out = json.get<T>();
    return {};
  }
}

/// Parses untrusted text: at most `max_bytes`, at most limits::kJsonDepth deep, valid UTF-8.
/// Errors: too_large, invalid_argument.
Result<nlohmann::json> parse_json(std::string_view text, std::size_t max_bytes = limits::kMessageBytes);

/// True if the message says that it is of `type`. Cheap for most of those that are not; it is not checked
/// otherwise.
bool is_type(std::string_view wire, std::string_view type);

/// The typed form of an already parsed document.
template <Message T>
Result<T> from_json(const nlohmann::json& json) {
  T out;
  auto ok = decode(json, out, Rule{}, "");
  if (!ok) return fail(ok.error());
  return out;
}

/// From the wire. Errors: too_large, invalid_argument naming the key.
template <Message T>
Result<T> parse(std::string_view wire) {
  auto json = parse_json(wire);
  if (!json) return fail(json.error());
  return from_json<T>(*json);
}

/// To the wire: compact UTF-8. Bytes that are not UTF-8 (a guest's name, say) become U+FFFD.
template <Message T>
std::string serialize(const T& value) {
  return encode(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace educloud::msg
