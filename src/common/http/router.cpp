#include <algorithm>
#include <stdexcept>

#include "common/http/message.hpp"

namespace educloud::http {
namespace {

/// The next '/'-separated part of `rest`, which begins with '/'; `rest` becomes what follows.
std::string_view take_segment(std::string_view& rest) {
  rest.remove_prefix(1);
  const std::size_t end = std::min(rest.find('/'), rest.size());
  const std::string_view segment = rest.substr(0, end);
  rest.remove_prefix(end);
  return segment;
}

bool is_name(std::string_view segment) {
  return segment.size() > 2 && segment.front() == '{' && segment.back() == '}';
}

bool matches(std::string_view pattern, std::string_view path, std::map<std::string, std::string>* params) {
  while (!pattern.empty() && !path.empty()) {
    const std::string_view expected = take_segment(pattern);
    const std::string_view actual = take_segment(path);
    if (!is_name(expected)) {
      if (expected != actual) return false;
      continue;
    }
    if (actual.empty()) return false;
    if (params != nullptr)
      params->insert_or_assign(std::string(expected.substr(1, expected.size() - 2)), actual);
  }
  return pattern.empty() && path.empty();
}

/// True if `a` is more exact than `b` (both match the same path): a word beats a {name}, leftmost first.
bool is_more_exact(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty()) {
    const bool a_name = is_name(take_segment(a));
    const bool b_name = is_name(take_segment(b));
    if (a_name != b_name) return b_name;
  }
  return false;
}

}  // namespace

void Router::add(Route route) {
  // A route without exactly one handler is a defect of the daemon, found at its first start.
  if (!route.pattern.starts_with('/') ||
      static_cast<bool>(route.handler) == static_cast<bool>(route.stream)) {
    throw std::logic_error("route " + route.method + " " + route.pattern +
                           " needs a '/' pattern and one handler");
  }
  routes_.push_back(std::move(route));
}

Router::Match Router::match(std::string_view method, std::string_view path) const {
  Match result;
  if (!path.starts_with('/')) return result;
  const Route* best = nullptr;
  const Route* get = nullptr;
  std::vector<std::string_view> allow;
  for (const Route& route : routes_) {
    if (!matches(route.pattern, path, nullptr)) continue;
    if (std::find(allow.begin(), allow.end(), route.method) == allow.end()) allow.push_back(route.method);
    if (route.method == method && (best == nullptr || is_more_exact(route.pattern, best->pattern)))
      best = &route;
    if (route.method == "GET" && (get == nullptr || is_more_exact(route.pattern, get->pattern))) get = &route;
  }
  if (best == nullptr && method == "HEAD") best = get;
  result.route = best;
  if (best != nullptr) {
    matches(best->pattern, path, &result.params);
    return result;
  }
  if (get != nullptr && std::find(allow.begin(), allow.end(), "HEAD") == allow.end()) allow.push_back("HEAD");
  std::sort(allow.begin(), allow.end());
  for (const std::string_view name : allow) {
    if (!result.allow.empty()) result.allow += ", ";
    result.allow += name;
  }
  return result;
}

}  // namespace educloud::http
