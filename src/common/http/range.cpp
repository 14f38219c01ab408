#include "common/http/range.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace educloud::http {
namespace {

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // A position past 2^64 is past every file; the caller sees it as the largest one.
  if (error == std::errc::result_out_of_range && end == text.data() + text.size()) return UINT64_MAX;
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

Range parse_range(std::string_view header, std::uint64_t size) {
  const Range whole{Range::Kind::whole, 0, size};
  header = trim(header);
  if (!header.starts_with("bytes=")) return whole;
  const std::string_view spec = trim(header.substr(6));
  const std::size_t dash = spec.find('-');
  if (dash == std::string_view::npos || spec.find(',') != std::string_view::npos) return whole;
  const std::string_view first = trim(spec.substr(0, dash));
  const std::string_view last = trim(spec.substr(dash + 1));

  if (first.empty()) {
    const auto suffix = parse_number(last);
    if (!suffix) return whole;
    if (*suffix == 0 || size == 0) return {Range::Kind::unsatisfiable, 0, 0};
    const std::uint64_t length = std::min(*suffix, size);
    return {Range::Kind::part, size - length, length};
  }
  const auto begin = parse_number(first);
  if (!begin) return whole;
  std::uint64_t end = UINT64_MAX;
  if (!last.empty()) {
    const auto given = parse_number(last);
    if (!given || *given < *begin) return whole;
    end = *given;
  }
  if (*begin >= size) return {Range::Kind::unsatisfiable, 0, 0};
  end = std::min(end, size - 1);
  return {Range::Kind::part, *begin, end - *begin + 1};
}

bool etag_matches(std::string_view list, std::string_view etag) {
  list = trim(list);
  if (list == "*") return true;
  while (!list.empty()) {
    if (list.starts_with("W/")) list.remove_prefix(2);
    if (!list.starts_with('"')) return false;
    const std::size_t end = list.find('"', 1);
    if (end == std::string_view::npos) return false;
    if (list.substr(1, end - 1) == etag) return true;
    list = trim(list.substr(end + 1));
    if (list.starts_with(',')) list = trim(list.substr(1));
  }
  return false;
}

}  // namespace educloud::http
