#include "common/config/config.hpp"

#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <set>
#include <sstream>

#include "common/base/ids.hpp"

namespace educloud::config {

struct Reader::Impl {
  std::filesystem::path file;
  toml::table root;
  std::set<std::string, std::less<>> known;
  std::optional<Error> problem;

  void refuse(std::string_view key, std::string_view rule, const toml::node* node = nullptr) {
    if (problem) return;
    std::string where = file.string();
    if (node != nullptr) where += ":" + std::to_string(node->source().begin.line);
    problem = Error{ErrorCode::invalid_argument, where + ": '" + std::string(key) + "' " + std::string(rule),
                    std::string(key)};
  }

  const toml::node* find(std::string_view key) {
    known.emplace(key);
    const toml::node* node = root.at_path(key).node();
    return node;
  }

  template <class T>
  std::optional<T> value(std::string_view key, std::string_view wanted) {
    const toml::node* node = find(key);
    if (node == nullptr) return std::nullopt;
    auto exact = node->value_exact<T>();
    if (!exact) refuse(key, "must be " + std::string(wanted), node);
    return exact;
  }

  void check_unknown(const toml::table& table, const std::string& prefix) {
    for (const auto& [name, node] : table) {
      const std::string key = prefix + std::string(name.str());
      if (const auto* inner = node.as_table()) {
        check_unknown(*inner, key + ".");
      } else if (!known.contains(key)) {
        refuse(key, "is not a key of this file", &node);
      }
    }
  }
};

Reader::Reader() : impl_(std::make_unique<Impl>()) {}
Reader::~Reader() = default;
Reader::Reader(Reader&&) noexcept = default;

Result<Reader> Reader::open(const std::filesystem::path& path) {
  Reader reader;
  reader.impl_->file = path;
  std::error_code errc;
  if (!std::filesystem::is_regular_file(path, errc)) {
    return fail(ErrorCode::not_found, path.string() + ": no such config file");
  }
  auto parsed = toml::parse_file(path.string());
  if (!parsed) {
    std::ostringstream text;
    text << path.string() << ":" << parsed.error().source().begin.line << ": "
         << parsed.error().description();
    return fail(ErrorCode::invalid_argument, text.str());
  }
  reader.impl_->root = std::move(parsed).table();
  return reader;
}

void Reader::text(std::string_view key, std::string& out, std::size_t min_size, std::size_t max_size) {
  const auto value = impl_->value<std::string>(key, "a string");
  if (!value) return;
  if (value->size() < min_size || value->size() > max_size) {
    impl_->refuse(key, "must have " + std::to_string(min_size) + " to " + std::to_string(max_size) + " bytes",
                  impl_->find(key));
    return;
  }
  out = *value;
}

void Reader::path(std::string_view key, std::filesystem::path& out) {
  std::string value = out.string();
  text(key, value, 0, 1024);
  if (!value.empty() && !std::filesystem::path(value).is_absolute()) {
    impl_->refuse(key, "must be an absolute path, not '" + value + "'", impl_->find(key));
    return;
  }
  out = std::filesystem::path(value).lexically_normal();
}

void Reader::host_name(std::string_view key, std::string& out) {
  std::string value = out;
  text(key, value);
  if (value.empty()) return;
  if (auto ok = HostName::parse(value); !ok) {
    impl_->refuse(key, "must be [a-z0-9-]{1,40}, not '" + value + "'", impl_->find(key));
    return;
  }
  out = value;
}

void Reader::choice(std::string_view key, std::string& out, std::string_view one_of) {
  std::string value = out;
  text(key, value);
  const std::string padded = "|" + std::string(one_of) + "|";
  if (value.find('|') != std::string::npos || padded.find("|" + value + "|") == std::string::npos) {
    impl_->refuse(key, "must be one of " + std::string(one_of) + ", not '" + value + "'", impl_->find(key));
    return;
  }
  out = value;
}

void Reader::boolean(std::string_view key, bool& out) {
  if (const auto value = impl_->value<bool>(key, "true or false")) out = *value;
}

void Reader::integer64(std::string_view key, std::int64_t& out, std::int64_t min, std::int64_t max) {
  const auto value = impl_->value<std::int64_t>(key, "an integer");
  if (!value) return;
  if (*value < min || *value > max) {
    impl_->refuse(key,
                  "must be from " + std::to_string(min) + " to " + std::to_string(max) + ", not " +
                      std::to_string(*value),
                  impl_->find(key));
    return;
  }
  out = *value;
}

void Reader::integer(std::string_view key, int& out, std::int64_t min, std::int64_t max) {
  std::int64_t wide = out;
  integer64(key, wide, min, max);
  out = static_cast<int>(wide);
}

void Reader::number(std::string_view key, double& out, double min, double max) {
  const toml::node* node = impl_->find(key);
  if (node == nullptr) return;
  const auto value = node->value<double>();
  if (!value || !(node->is_number())) {
    impl_->refuse(key, "must be a number", node);
  } else if (!(*value >= min && *value <= max)) {
    impl_->refuse(key, "must be from " + std::to_string(min) + " to " + std::to_string(max), node);
  } else {
    out = *value;
  }
}

void Reader::texts(std::string_view key, std::vector<std::string>& out, std::size_t max_entries) {
  const toml::node* node = impl_->find(key);
  if (node == nullptr) return;
  const auto* array = node->as_array();
  if (array == nullptr || array->size() > max_entries) {
    impl_->refuse(key, "must be a list of at most " + std::to_string(max_entries) + " strings", node);
    return;
  }
  std::vector<std::string> values;
  for (const auto& one : *array) {
    const auto value = one.value_exact<std::string>();
    if (!value) return impl_->refuse(key, "must hold only strings", &one);
    values.push_back(*value);
  }
  out = std::move(values);
}

void Reader::tables(std::string_view key, const std::function<void(Reader&)>& read, std::size_t max_entries) {
  const toml::node* node = impl_->find(key);
  if (node == nullptr) return;
  const auto* array = node->as_array();
  if (array == nullptr || array->size() > max_entries || !array->is_homogeneous(toml::node_type::table)) {
    return impl_->refuse(
        key,
        "must be a list of at most " + std::to_string(max_entries) + " tables: [[" + std::string(key) + "]]",
        node);
  }
  for (const auto& one : *array) {
    Reader inner;
    inner.impl_->file = impl_->file;
    inner.impl_->root = *one.as_table();
    read(inner);
    auto ok = inner.finish();
    if (!ok && !impl_->problem) impl_->problem = ok.error();
  }
}

void Reader::refuse(std::string_view key, std::string_view rule) {
  impl_->refuse(key, rule, impl_->find(key));
}

void Reader::require(std::string_view key) {
  if (impl_->find(key) == nullptr) impl_->refuse(key, "is missing");
}

Result<> Reader::finish() {
  impl_->check_unknown(impl_->root, "");
  if (impl_->problem) return fail(*impl_->problem);
  return {};
}

}  // namespace educloud::config
