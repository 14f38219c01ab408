#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::config {

/// Reads one TOML file into a struct of the caller's:
///
///   Reader reader = *Reader::open(path);
///   reader.text("host", out.host);
///   reader.integer("port", out.port, 1, 65535);
///   if (auto ok = reader.finish(); !ok) ...
///
/// Keys are "name" or "table.name". Members keep their default when the key is missing. The first
/// problem (wrong type, out of range, unknown key, missing required key) is what `finish` returns,
/// naming file, line, key and rule.
class Reader {
 public:
  static Result<Reader> open(const std::filesystem::path& path);
  ~Reader();
  Reader(Reader&&) noexcept;

  void text(std::string_view key, std::string& out, std::size_t min_size = 0, std::size_t max_size = 1024);
  void path(std::string_view key, std::filesystem::path& out);                   ///< absolute
  void host_name(std::string_view key, std::string& out);                        ///< ids.hpp HostName
  void choice(std::string_view key, std::string& out, std::string_view one_of);  ///< "a|b"
  void boolean(std::string_view key, bool& out);
  void integer(std::string_view key, int& out, std::int64_t min, std::int64_t max);
  void integer64(std::string_view key, std::int64_t& out, std::int64_t min, std::int64_t max);
  void number(std::string_view key, double& out, double min, double max);
  void texts(std::string_view key, std::vector<std::string>& out, std::size_t max_entries = 100);
  /// Each table of an array of tables ([[key]]), in order, to a reader of its own; unknown keys in it are
  /// refused too.
  void tables(std::string_view key, const std::function<void(Reader&)>& read, std::size_t max_entries = 100);
  /// What the reader itself can not see is wrong with `key`.
  void refuse(std::string_view key, std::string_view rule);
  /// The key must be there.
  void require(std::string_view key);
  /// Errors: invalid_argument.
  Result<> finish();

 private:
  Reader();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::config
