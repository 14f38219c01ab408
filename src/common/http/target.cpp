#include "common/http/target.hpp"

#include <charconv>

#include "common/http/client.hpp"

namespace educloud::http {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

Result<std::string> decode_path(std::string_view raw) {
  if (raw.empty() || raw.front() != '/') {
    return fail(ErrorCode::invalid_argument, "the request path must begin with '/'");
  }
  std::string path = "/";
  std::size_t begin = 1;
  while (begin <= raw.size()) {
    const std::size_t end = std::min(raw.find('/', begin), raw.size());
    auto segment = percent_decode(raw.substr(begin, end - begin), false);
    if (!segment) return fail(std::move(segment.error()), "request path");
    const bool last = end == raw.size();
    if (*segment == "." || *segment == "..") {
      return fail(ErrorCode::invalid_argument, "the request path has a '.' or '..' segment");
    }
    if (segment->find('/') != std::string::npos) {
      return fail(ErrorCode::invalid_argument, "the request path has an escaped '/'");
    }
    if (segment->empty() && !last) return fail(ErrorCode::invalid_argument, "the request path has '//'");
    path += *segment;
    if (last) break;
    path += '/';
    begin = end + 1;
  }
  return path;
}

Result<> decode_query(std::string_view raw, std::map<std::string, std::string>& query) {
  while (!raw.empty()) {
    const std::size_t end = std::min(raw.find('&'), raw.size());
    const std::string_view pair = raw.substr(0, end);
    raw.remove_prefix(std::min(end + 1, raw.size()));
    if (pair.empty()) continue;
    const std::size_t equals = std::min(pair.find('='), pair.size());
    auto key = percent_decode(pair.substr(0, equals), true);
    if (!key) return fail(std::move(key.error()), "query");
    auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!value) return fail(std::move(value.error()), "query value of " + *key);
    query.insert_or_assign(std::move(*key), std::move(*value));
    if (query.size() > kMaxQueryKeys) {
      return fail(ErrorCode::invalid_argument, "more than " + std::to_string(kMaxQueryKeys) + " query keys");
    }
  }
  return {};
}

}  // namespace

Result<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0) return fail(ErrorCode::invalid_argument, "a '%' without two hex digits");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (is_control(c)) return fail(ErrorCode::invalid_argument, "a control character");
    out += c;
  }
  return out;
}

Result<Target> parse_target(std::string_view text) {
  if (text.size() > kMaxTargetBytes) {
    return fail(ErrorCode::too_large, "the request target is longer than " + std::to_string(kMaxTargetBytes));
  }
  if (!text.empty() && text.front() != '/') {
    const std::size_t scheme = text.find("://");
    if (scheme == std::string_view::npos) {
      return fail(ErrorCode::invalid_argument, "the request target must begin with '/'");
    }
    const std::size_t path = text.find_first_of("/?", scheme + 3);
    text = path == std::string_view::npos ? "/" : text.substr(path);
  }
  if (text.find('#') != std::string_view::npos) {
    return fail(ErrorCode::invalid_argument, "the request target has a fragment");
  }
  const std::size_t mark = std::min(text.find('?'), text.size());
  auto path = decode_path(text.substr(0, mark));
  if (!path) return fail(std::move(path.error()));
  Target target;
  target.path = std::move(*path);
  if (auto query = decode_query(text.substr(std::min(mark + 1, text.size())), target.query); !query) {
    return fail(std::move(query.error()));
  }
  return target;
}

std::string url_encode(std::string_view text) {
  static constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (is_unreserved(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

Result<Url> Url::parse(std::string_view text) {
  const std::string shown(text.substr(0, std::min(text.find('?'), std::size_t{100})));
  auto refuse = [&shown](std::string_view why) {
    return fail(ErrorCode::invalid_argument,
                "'" + shown + "' is no URL like http://host:port/path: " + std::string(why));
  };
  Url url;
  if (text.starts_with("https://")) {
    url.tls = true;
    url.port = 443;
    text.remove_prefix(8);
  } else if (text.starts_with("http://")) {
    text.remove_prefix(7);
  } else {
    return refuse("it begins with neither http:// nor https://");
  }
  for (const char c : text) {
    if (is_control(c) || c == ' ' || c == '#') return refuse("it has a blank, a control character or a '#'");
  }
  const std::size_t slash = std::min(text.find_first_of("/?"), text.size());
  std::string_view authority = text.substr(0, slash);
  url.path = std::string(text.substr(slash));
  if (url.path.starts_with('?')) url.path.insert(0, "/");
  if (authority.find('@') != std::string_view::npos) return refuse("a user name does not belong into it");

  std::size_t host_end = authority.find(':');
  if (authority.starts_with('[')) {
    const std::size_t bracket = authority.find(']');
    if (bracket == std::string_view::npos) return refuse("a '[' without ']'");
    url.host = std::string(authority.substr(1, bracket - 1));
    host_end = bracket + 1 == authority.size() ? std::string_view::npos : bracket + 1;
    if (host_end != std::string_view::npos && authority[host_end] != ':') return refuse("text after ']'");
  } else {
    url.host = std::string(authority.substr(0, host_end));
  }
  if (url.host.empty()) return refuse("the host is missing");
  if (host_end != std::string_view::npos) {
    const std::string_view port = authority.substr(host_end + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc{} || end != port.data() + port.size() || url.port < 1 || url.port > 65535) {
      return refuse("the port must be 1 to 65535");
    }
  }
  return url;
}

std::string Url::authority() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? 443 : 80) ? name : name + ":" + std::to_string(port);
}

}  // namespace educloud::http
