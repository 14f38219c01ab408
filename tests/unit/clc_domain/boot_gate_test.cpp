#include "clc/domain/boot_gate.hpp"

#include <gmock/gmock.h>

#include <random>

#include "clc/domain/task_rules.hpp"

namespace educloud::clc {
namespace {

TEST(BootGate, OpensForAsManyAsThereAreSlots) {
  const BootGate gate{3, 30'000};
  EXPECT_EQ(to_open(gate, {0, 0}), 0);
  EXPECT_EQ(to_open(gate, {0, 2}), 2);
  EXPECT_EQ(to_open(gate, {0, 9}), 3);
  EXPECT_EQ(to_open(gate, {2, 9}), 1);
  EXPECT_EQ(to_open(gate, {3, 9}), 0);
  EXPECT_EQ(to_open(gate, {7, 9}), 0) << "the limit was lowered";
}

TEST(BootGate, ABootThatDoesNotComeUpLosesItsSlot) {
  const BootGate gate{1, 30'000};
  EXPECT_TRUE(holds_slot(gate, 1000, 1000));
  EXPECT_TRUE(holds_slot(gate, 1000, 30'999));
  EXPECT_FALSE(holds_slot(gate, 1000, 31'000));
  EXPECT_FALSE(holds_slot(gate, 5000, 1000)) << "the clock was set back: nobody waits for that";
}

// Whatever comes up and does not: never more than the limit hold slots, nobody is overtaken, and everybody
// boots within a bounded time of the last one before him.
TEST(BootGateProperty, NeverOverTheLimitFirstComeFirstServedAndNobodyStarves) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const BootGate gate{1 + static_cast<int>(random() % 5), 30'000};
    struct Boot {
      std::int64_t queued_at, runs_at;
    };
    std::vector<Boot> boots;
    std::vector<std::int64_t> waiting_since;
    std::int64_t now = 1'000'000;
    std::size_t begun = 0;
    for (int i = 0; i < 60; ++i) waiting_since.push_back(now);
    const std::int64_t bound = now + (60 / gate.max_parallel + 1) * gate.slot_ms;
    while (begun < waiting_since.size()) {
      ASSERT_LE(now, bound) << "seed " << seed;
      AtGate at{0, static_cast<int>(waiting_since.size() - begun)};
      for (const auto& one : boots) at.booting += one.runs_at > now && holds_slot(gate, one.queued_at, now);
      ASSERT_LE(at.booting, gate.max_parallel) << "seed " << seed;
      for (int open = to_open(gate, at); open > 0; --open, ++begun) {
        // Every third never comes up.
        const auto takes = random() % 3 == 0 ? 1'000'000'000 : static_cast<std::int64_t>(random() % 60'000);
        boots.push_back({now, now + takes});
      }
      now += 1000;
    }
  }
}

TEST(BootGate, ATaskThatWaitsThereHasADeadlineOfItsOwnAndLeavesWithItsState) {
  Task task;
  task.kind = TaskKind::run;
  task.state = {task::Phase::preparing, task::State::done};
  task.node = "nc1";
  task.gated_at = 1000;
  EXPECT_EQ(patience_ms(task), BootGate::kPatienceMs);
  EXPECT_THAT(timeout_text(task), testing::HasSubstr("30 min in the boot queue of nc1"));
  EXPECT_EQ(vm_state(task), "preparing");
  const auto after = after_event(task, *task::step(task.state, task::Event::cancel), nullptr, 2000);
  EXPECT_EQ(after.gated_at, 0);
}

}  // namespace
}  // namespace educloud::clc
