#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace educloud::inbox {

/// A row of `tasks`: the last command of a task and the last status told about it.
struct Row {
  std::string tid;
  std::string cmdid;
  std::string op;
  std::int64_t epoch = 0;
  std::int64_t attempt = 0;
  std::int64_t seq = 0;
  std::string command;  ///< JSON
  std::string status;   ///< JSON; empty: none yet for this command
  bool sent = true;     ///< the broker confirmed `status`
  bool finished = false;
  std::int64_t updated_ms = 0;
};

/// More statuses than a task tells between two commands.
inline constexpr std::int64_t kSeqStep = 1'000'000;

/// The inbox's database. One connection, one thread at a time (the inbox's mutex). What each call wrote
/// survives kill -9; `put_command` alone syncs, and with it all that was written before, so only that
/// survives a power cut for certain (ADR 8). Errors of all calls: exhausted (disk full), corrupt, internal.
class Store {
 public:
  /// Opens or makes `file` and moves the numbers of all its statuses on by kSeqStep, since a power cut may
  /// have taken the last ones that were told.
  static Result<std::unique_ptr<Store>> open(const std::filesystem::path& file);
  ~Store();

  Result<std::vector<Row>> load();
  /// True if `cmdid` was ever accepted and is not forgotten yet.
  Result<bool> knows(const std::string& cmdid);
  /// Remembers the command and makes `row` the task's row.
  Result<> put_command(const Row& row);
  Result<> put_status(const std::string& tid, std::int64_t seq, const std::string& status, bool finished,
                      std::int64_t now_ms);
  /// Written with the next call that writes, or by `flush`: lost, it costs one repeated status.
  void mark_sent(const std::string& tid, std::int64_t seq);
  /// Writes what `mark_sent` left waiting.
  Result<> flush();
  Result<> forget_task(const std::string& tid);
  /// Forgets commands received before `before_ms`, and all but the newest `keep`; never one of a row in
  /// `tasks`.
  Result<> forget_commands(std::int64_t before_ms, std::size_t keep);

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::inbox
