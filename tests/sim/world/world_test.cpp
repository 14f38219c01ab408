#include "sim/world/world.hpp"

#include <gmock/gmock.h>

#include "common/obs/log.hpp"
#include "support/temp_dir.hpp"

namespace educloud::sim {
namespace {

class World : public ::testing::Test {
 protected:
  World() { obs::init_log("sim", "off"); }
  ~World() override { obs::init_log("educloud", "info"); }

  Outcome run(std::uint64_t seed, bool faults = true) {
    RunOptions options;
    options.folder = folder_ / "run";
    options.faults = faults;
    return run_world(seed, options);
  }

  testing::TempDir folder_;
};

TEST_F(World, EndsWellWithoutFaults) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) EXPECT_EQ(run(seed, false).defect, "") << "seed " << seed;
}

TEST_F(World, EndsWellUnderFaults) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) EXPECT_EQ(run(seed).defect, "") << "seed " << seed;
}

TEST_F(World, IsTheSameForTheSameSeed) {
  const auto once = run(7);
  const auto again = run(7);
  EXPECT_EQ(once.digest, again.digest);
  EXPECT_EQ(once.events, again.events);
  EXPECT_NE(once.digest, run(8).digest);
}

}  // namespace
}  // namespace educloud::sim
