#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "support/commit_watch.hpp"
#include "support/fault.hpp"
#include "support/power_cut.hpp"
#include "support/temp_dir.hpp"

namespace educloud::testing {

/// Lives of a daemon to try, as many times more as EDUCLOUD_POWER says; EDUCLOUD_POWER_SEED: only that one.
/// The same seed does the same work; when threads meet differs.
inline std::vector<std::uint64_t> lives(std::uint64_t count) {
  if (const char* one = std::getenv("EDUCLOUD_POWER_SEED")) return {std::strtoull(one, nullptr, 10)};
  if (const char* more = std::getenv("EDUCLOUD_POWER")) count *= std::strtoull(more, nullptr, 10);
  std::vector<std::uint64_t> seeds(count);
  for (std::uint64_t i = 0; i < count; ++i) seeds[i] = i + 1;
  return seeds;
}

/// Cuts `recording` at `count` random moments and hands each disk that is left to `check`, with the moment
/// it was cut at.
inline void cut_often(
    const Recording& recording, std::uint64_t seed, int count,
    const std::function<void(const std::filesystem::path& disk, std::size_t position)>& check) {
  std::mt19937_64 random(seed);
  std::vector<std::size_t> positions{recording.ops.size()};
  while (static_cast<int>(positions.size()) < count)
    positions.push_back(random() % (recording.ops.size() + 1));
  std::sort(positions.begin(), positions.end());
  PowerCut journalled(recording, NameOrder::journalled), any(recording, NameOrder::any);
  const TempDir folder;
  int number = 0;
  for (const auto position : positions) {
    auto& cut = random() % 2 == 0 ? journalled : any;
    cut.advance(position);
    const auto disk = folder / std::to_string(++number);
    const auto fate = random();
    cut.leave(fate, disk);
    SCOPED_TRACE("cut " + std::to_string(number) + " at operation " + std::to_string(position) + " of " +
                 std::to_string(recording.ops.size()) + (&cut == &any ? ", names in any order" : ""));
    check(disk, position);
    std::filesystem::remove_all(disk);
    if (::testing::Test::HasFailure()) return;
  }
  test::injected("power-loss", count);
}

/// The recorder has seen all that was done to `root`.
inline void expect_all_recorded(const Recording& recording, const std::filesystem::path& root) {
  PowerCut whole(recording, NameOrder::journalled);
  whole.advance(recording.ops.size());
  EXPECT_EQ(whole.difference(root), "");
}

/// `database` is whole and holds what some commit left that may have been the last one.
inline void expect_one_of(const std::filesystem::path& database,
                          const std::vector<const std::string*>& possible) {
  const auto content = dump_database(database);
  const bool found =
      std::any_of(possible.begin(), possible.end(), [&](const auto* one) { return *one == content; });
  EXPECT_TRUE(found) << "none of " << possible.size() << " possible contents. There is:\n"
                     << content << "\nThe newest possible one:\n"
                     << *possible.back();
}

}  // namespace educloud::testing
