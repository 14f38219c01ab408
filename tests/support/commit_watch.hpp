#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "support/disk_recorder.hpp"

namespace educloud::testing {

/// All that is in a database, as text: schema and rows. "" if it holds nothing yet or is not there. What is
/// in its write-ahead log is read and left there. Fails the test if it cannot be read.
std::string dump_database(const std::filesystem::path& database);

/// Notes what is in `database` (WAL mode) after each commit of this process, and has its log written back
/// every `checkpoint_pages` pages instead of SQLite's 1000. The database must be opened after this is made.
/// One at a time.
class CommitWatch {
 public:
  struct Commit {
    std::size_t position = 0;  ///< of the recorder, when it was done
    bool synced = false;       ///< synchronous = FULL: the disk has it by then
    std::string content;
  };

  CommitWatch(const DiskRecorder& recorder, std::filesystem::path database, int checkpoint_pages);
  ~CommitWatch();
  CommitWatch(const CommitWatch&) = delete;
  CommitWatch& operator=(const CommitWatch&) = delete;

  /// Call once the database is closed.
  std::vector<Commit> take();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

/// What a database may hold after a cut at `position`: the commits from the last synced one to the one that
/// was under way, in order. "" stands for the time before the first, `before`, too.
std::vector<const std::string*> possible_contents(const std::vector<CommitWatch::Commit>& commits,
                                                  const std::string& before, std::size_t position);

}  // namespace educloud::testing
