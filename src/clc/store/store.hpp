#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>

#include "clc/store/sql.hpp"
#include "common/base/result.hpp"

namespace educloud::clc::store {

struct StoreOptions {
  std::size_t queue_limit = 10'000;            ///< writes waiting
  std::size_t group = 128;                     ///< writes per commit
  std::chrono::milliseconds deadline{10'000};  ///< until a write has begun
  std::chrono::milliseconds lazy_wait{100};    ///< of what was posted lazily
  /// False: each write runs, commits and is told of on its caller's thread, of which there must be only one
  /// (the simulator's).
  bool writer_thread = true;
};

/// clc's database: one writer thread, any number of readers (a read-only connection per thread).
/// WAL, synchronous FULL, foreign keys. What `write` returned without error survives a power cut.
class Store {
 public:
  /// Opens or makes `path`, checks its integrity and brings its schema up to date, after a copy (backup.hpp).
  /// Errors: conflict (another process has it open), corrupt, invalid_argument (made by a newer version).
  static Result<std::unique_ptr<Store>> open(const std::filesystem::path& path, StoreOptions options = {});
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Runs `fn(Sql&) -> Result<T>` in a transaction on the writer thread and returns its result once that
  /// is durable. Several queued calls share one commit; an error rolls back only its own work.
  /// Do not call from inside another write. Errors: exhausted (queue full), timeout (not begun, not done).
  template <class F>
  std::invoke_result_t<F&, Sql&> write(F fn) {
    std::optional<std::invoke_result_t<F&, Sql&>> out;
    auto done = run_write([&](Sql& sql) -> Result<> {
      out.emplace(fn(sql));
      if (!*out) return fail(out->error());
      return {};
    });
    if (!done) return fail(done.error());
    return std::move(*out);
  }

  using Work = std::function<Result<>(Sql&)>;
  /// Like write, without waiting: `on_done` runs on the writer thread after the commit (or the failure).
  /// False if the queue is full: neither is called.
  bool post(Work work, std::function<void(Result<>)> on_done);
  /// Like post, for what nobody waits for: it goes with the next write, so that it costs no sync of its own,
  /// or alone after `StoreOptions::lazy_wait`.
  bool post_lazily(Work work, std::function<void(Result<>)> on_done);

  /// Runs `fn(Sql&) -> Result<T>` on this thread's read-only connection, in one snapshot.
  template <class F>
  std::invoke_result_t<F&, Sql&> read(F fn) {
    std::optional<std::invoke_result_t<F&, Sql&>> out;
    auto done = run_read([&](Sql& sql) -> Result<> {
      out.emplace(fn(sql));
      return {};
    });
    if (!done) return fail(done.error());
    return std::move(*out);
  }

  /// Rises with every commit, before anybody is told of it: what was read after this number was read is right
  /// for as long as it stays.
  std::uint64_t commits() const;

  /// Finishes what is queued and stops the writer. Idempotent.
  void close();

 private:
  Store();
  Result<> run_write(Work work);
  Result<> run_read(const Work& work);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::clc::store
