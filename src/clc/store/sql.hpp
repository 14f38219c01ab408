#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::clc::store {

/// A value bound to a `?`. bool and int become integers.
class Value {
 public:
  Value(std::nullptr_t) {}
  template <class T>
  requires std::is_integral_v<T> Value(T number) : held_(static_cast<std::int64_t>(number)) {}
  Value(std::string text) : held_(std::move(text)) {}
  Value(std::string_view text) : held_(std::string(text)) {}
  Value(const char* text) : held_(std::string(text)) {}
  const std::variant<std::nullptr_t, std::int64_t, std::string>& held() const { return held_; }

 private:
  std::variant<std::nullptr_t, std::int64_t, std::string> held_;
};

class Row {
 public:
  std::int64_t number(std::size_t column) const;
  const std::string& text(std::size_t column) const;
  bool flag(std::size_t column) const { return number(column) != 0; }

 private:
  friend class Sql;
  std::vector<std::variant<std::nullptr_t, std::int64_t, std::string>> values_;
};

/// What a failing statement throws. Only Store::read and Store::write, which every statement runs in,
/// catch it: the transaction is rolled back and the caller gets the Error.
struct Abort {
  Error error;
};

/// One connection inside a transaction. Statements are prepared once per text; only values vary.
class Sql {
 public:
  struct Impl;
  explicit Sql(std::unique_ptr<Impl> impl);
  ~Sql();
  Sql(const Sql&) = delete;
  Sql& operator=(const Sql&) = delete;

  /// Rows changed.
  int run(std::string_view sql, std::initializer_list<Value> values = {});
  std::vector<Row> all(std::string_view sql, std::initializer_list<Value> values = {});
  std::optional<Row> one(std::string_view sql, std::initializer_list<Value> values = {});
  /// The single integer of a query that always has a row; 0 for NULL.
  std::int64_t number(std::string_view sql, std::initializer_list<Value> values = {});
  std::int64_t last_row_id() const;
  /// Runs on the writer thread once the work in hand is durable, in the order of the commits; not at all if
  /// it is rolled back. Must not block or write.
  void after_commit(std::function<void()> hook) { hooks_.push_back(std::move(hook)); }
  std::vector<std::function<void()>> take_hooks() { return std::exchange(hooks_, {}); }
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
  std::vector<std::function<void()>> hooks_;
};

}  // namespace educloud::clc::store
