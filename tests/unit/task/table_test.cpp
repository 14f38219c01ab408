#include "common/task/table.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace educloud::task {
namespace {

constexpr std::array kEvents{
    Event::start,    Event::stop,    Event::submit,   Event::cancel,  Event::downloading, Event::cloning,
    Event::prepared, Event::booting, Event::running,  Event::stopped, Event::uploading,   Event::submitted,
    Event::deleted,  Event::failed,  Event::fetched,  Event::timeout, Event::lost,        Event::operate,
    Event::paused,   Event::refused, Event::migrating};
constexpr std::array kActions{
    Action::none,          Action::send_prepare, Action::send_run,        Action::send_stop,
    Action::send_submit,   Action::send_delete,  Action::publish_version, Action::release,
    Action::send_operation};
constexpr TaskState kStart{Phase::preparing, State::init};
/// An import begins here: its upload is what is awaited.
constexpr TaskState kImportStart{Phase::submitting, State::init};
constexpr TaskState kGone{Phase::submitting, State::gone};

bool is_known(TaskState state) {
  return std::ranges::find(states(), state) != states().end();
}

std::set<TaskState> reachable_from(TaskState start) {
  std::set<TaskState> seen{start};
  for (std::size_t before = 0; before != seen.size();) {
    before = seen.size();
    for (const auto& row : table()) {
      if (seen.contains(row.from)) seen.insert(row.to);
    }
  }
  return seen;
}

TEST(Table, EveryRowIsReachable) {
  const auto seen = reachable_from(kStart);
  for (const auto& row : table()) {
    EXPECT_TRUE(seen.contains(row.from)) << to_string(row.from.phase) << "/" << to_string(row.from.state);
  }
  EXPECT_EQ(seen.size(), states().size());
}

TEST(Table, EveryEventAndActionIsUsed) {
  std::set<Event> events;
  std::set<Action> actions;
  for (const auto& row : table()) {
    events.insert(row.event);
    actions.insert(row.action);
  }
  EXPECT_EQ(events.size(), kEvents.size());
  EXPECT_EQ(actions.size(), kActions.size());
}

TEST(Table, StepGivesExactlyTheRows) {
  std::size_t rows = 0;
  for (const auto& state : states()) {
    for (const auto event : kEvents) {
      const auto row = step(state, event);
      if (!row) continue;
      ++rows;
      EXPECT_EQ(row->from, state);
      EXPECT_EQ(row->event, event);
      EXPECT_TRUE(is_known(row->to));
    }
  }
  EXPECT_EQ(rows, table().size());
}

TEST(Table, NothingLeavesGone) {
  for (const auto event : kEvents) EXPECT_FALSE(step(kGone, event));
}

TEST(Table, AnUnknownStateHasNoRows) {
  for (const auto event : kEvents) EXPECT_FALSE(step({Phase::editing, State::downloading}, event));
}

TEST(Table, NothingIsReleasedBeforeTheNodeSaysItIsDeleted) {
  for (const auto& row : table()) {
    EXPECT_EQ(row.action == Action::release, row.to == kGone);
    EXPECT_EQ(row.action == Action::release, row.event == Event::deleted);
  }
}

TEST(Table, AVersionIsPublishedOnlyBySubmitted) {
  for (const auto& row : table())
    EXPECT_EQ(row.action == Action::publish_version, row.event == Event::submitted);
}

TEST(Table, ADeadTaskHoldsNoCapacityAndHasNoDeadline) {
  EXPECT_FALSE(holds_capacity(kGone));
  EXPECT_FALSE(is_transient(kGone));
  EXPECT_FALSE(holds_capacity({Phase::editing, State::stopped}));
  EXPECT_TRUE(holds_capacity({Phase::editing, State::running}));
}

TEST(Table, APushEndsWithoutAVm) {
  TaskState state = kStart;
  for (const auto event : {Event::downloading, Event::downloading, Event::fetched, Event::deleted}) {
    const auto row = step(state, event);
    ASSERT_TRUE(row) << to_string(event);
    EXPECT_NE(row->action, Action::send_run);
    state = row->to;
  }
  EXPECT_EQ(state, kGone);
  EXPECT_EQ(step(kStart, Event::fetched)->action, Action::send_delete);
  EXPECT_FALSE(step({Phase::preparing, State::cloning}, Event::fetched)) << "a push copies nothing";
}

TEST(Names, GoThereAndBack) {
  for (const auto phase : {Phase::preparing, Phase::editing, Phase::submitting}) {
    EXPECT_EQ(parse_phase(to_string(phase)).value(), phase);
  }
  for (const auto& state : states()) EXPECT_EQ(parse_state(to_string(state.state)).value(), state.state);
  for (const auto event : kEvents) EXPECT_EQ(parse_event(to_string(event)).value(), event);
  std::set<std::string_view> names;
  for (const auto action : kActions) names.insert(to_string(action));
  EXPECT_EQ(names.size(), kActions.size());
  EXPECT_FALSE(names.contains("?"));
}

TEST(Names, UnknownOnesAreRefused) {
  for (const std::string_view text : {"", "Running", "running ", "gone!", "?"}) {
    EXPECT_EQ(parse_phase(text).error().key, "phase");
    EXPECT_EQ(parse_state(text).error().key, "state");
    EXPECT_EQ(parse_event(text).error().key, "event");
  }
}

/// A node that answers a task/delete some time, whatever else it says before.
TEST(Property, RandomEventsNeverLeaveTheTableAndCancelAlwaysEnds) {
  constexpr int kSteps = 100'000;
  for (const unsigned seed : {1U, 2U, 3U, 4U, 5U}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto any_event = [&] { return kEvents[random() % kEvents.size()]; };
    TaskState state = kStart;
    int lives = 0, published = 0;
    for (int i = 0; i < kSteps; ++i) {
      const auto row = step(state, any_event());
      if (!row) continue;
      ASSERT_TRUE(is_known(row->to));
      if (row->action == Action::publish_version) ++published;
      state = row->to;
      if (state == kGone) {
        ++lives;
        state = random() % 2 == 0 ? kStart : kImportStart;
      }
      if (random() % 50 != 0) continue;
      // Now somebody cancels: from here `deleted` ends it, and nothing in between brings it back to life.
      const auto cancelled = step(state, Event::cancel);
      ASSERT_TRUE(cancelled);
      ASSERT_EQ(cancelled->action, Action::send_delete);
      auto ending = cancelled->to;
      for (int noise = 0; noise < 5; ++noise) {
        const auto event = any_event();
        if (event == Event::deleted) continue;
        if (const auto next = step(ending, event)) ending = next->to;
        ASSERT_TRUE(ending.state == State::deleting || ending.state == State::done);
      }
      const auto last = step(ending, Event::deleted);
      ASSERT_TRUE(last);
      ASSERT_EQ(last->to, kGone);
      ASSERT_EQ(last->action, Action::release);
    }
    EXPECT_GT(lives, 100);
    EXPECT_GT(published, 10);
  }
}

TEST(Property, AVersionIsPublishedAtMostOncePerLife) {
  std::mt19937 random(7);
  TaskState state = kStart;
  int published = 0;
  for (int i = 0; i < 100'000; ++i) {
    const auto row = step(state, kEvents[random() % kEvents.size()]);
    if (!row) continue;
    if (row->action == Action::publish_version) ++published;
    ASSERT_LE(published, 1);
    state = row->to;
    if (state != kGone) continue;
    state = kStart;
    published = 0;
  }
}

}  // namespace
}  // namespace educloud::task
