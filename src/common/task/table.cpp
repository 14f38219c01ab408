#include "common/task/table.hpp"

#include <array>

namespace educloud::task {
namespace {

constexpr TaskState kPrepareInit{Phase::preparing, State::init};
constexpr TaskState kDownloading{Phase::preparing, State::downloading};
constexpr TaskState kCloning{Phase::preparing, State::cloning};
constexpr TaskState kPrepared{Phase::preparing, State::done};
constexpr TaskState kBooting{Phase::editing, State::booting};
constexpr TaskState kRunning{Phase::editing, State::running};
constexpr TaskState kPaused{Phase::editing, State::paused};
constexpr TaskState kMigrating{Phase::editing, State::migrating};
constexpr TaskState kStopped{Phase::editing, State::stopped};
constexpr TaskState kDeleting{Phase::editing, State::deleting};
constexpr TaskState kSubmitInit{Phase::submitting, State::init};
constexpr TaskState kUploading{Phase::submitting, State::uploading};
constexpr TaskState kSubmitted{Phase::submitting, State::done};
constexpr TaskState kGone{Phase::submitting, State::gone};

constexpr std::array kStates{kPrepareInit, kDownloading, kCloning,   kPrepared, kBooting,
                             kRunning,     kPaused,      kMigrating, kStopped,  kDeleting,
                             kSubmitInit,  kUploading,   kSubmitted, kGone};

// One block per state, in the order of a task's life. A node may skip a state (an image that is
// cached needs no download) and may repeat one (progress); it may never go back on its own. A push has no
// VM: it ends where the others run theirs.
constexpr std::array kTable{
    // preparing/init: waiting for the node, or failed and waiting for the user
    Transition{kPrepareInit, Event::start, kPrepareInit, Action::send_prepare},
    Transition{kPrepareInit, Event::downloading, kDownloading, Action::none},
    Transition{kPrepareInit, Event::cloning, kCloning, Action::none},
    Transition{kPrepareInit, Event::prepared, kPrepared, Action::send_run},
    Transition{kPrepareInit, Event::fetched, kDeleting, Action::send_delete},
    Transition{kPrepareInit, Event::failed, kPrepareInit, Action::none},
    Transition{kPrepareInit, Event::timeout, kPrepareInit, Action::none},
    Transition{kPrepareInit, Event::cancel, kDeleting, Action::send_delete},
    Transition{kPrepareInit, Event::lost, kPrepareInit, Action::send_prepare},
    // preparing/downloading
    Transition{kDownloading, Event::downloading, kDownloading, Action::none},
    Transition{kDownloading, Event::cloning, kCloning, Action::none},
    Transition{kDownloading, Event::prepared, kPrepared, Action::send_run},
    Transition{kDownloading, Event::fetched, kDeleting, Action::send_delete},
    Transition{kDownloading, Event::failed, kPrepareInit, Action::none},
    Transition{kDownloading, Event::timeout, kPrepareInit, Action::none},
    Transition{kDownloading, Event::cancel, kDeleting, Action::send_delete},
    Transition{kDownloading, Event::lost, kPrepareInit, Action::send_prepare},
    // preparing/cloning
    Transition{kCloning, Event::cloning, kCloning, Action::none},
    Transition{kCloning, Event::prepared, kPrepared, Action::send_run},
    Transition{kCloning, Event::failed, kPrepareInit, Action::none},
    Transition{kCloning, Event::timeout, kPrepareInit, Action::none},
    Transition{kCloning, Event::cancel, kDeleting, Action::send_delete},
    Transition{kCloning, Event::lost, kPrepareInit, Action::send_prepare},
    // preparing/done: the run command is on its way
    Transition{kPrepared, Event::booting, kBooting, Action::none},
    Transition{kPrepared, Event::running, kRunning, Action::none},
    Transition{kPrepared, Event::stopped, kStopped, Action::none},
    Transition{kPrepared, Event::failed, kStopped, Action::none},
    Transition{kPrepared, Event::timeout, kStopped, Action::send_stop},
    Transition{kPrepared, Event::cancel, kDeleting, Action::send_delete},
    Transition{kPrepared, Event::lost, kPrepareInit, Action::send_prepare},
    // editing/booting
    Transition{kBooting, Event::booting, kBooting, Action::none},
    Transition{kBooting, Event::running, kRunning, Action::none},
    Transition{kBooting, Event::stop, kBooting, Action::send_stop},
    Transition{kBooting, Event::stopped, kStopped, Action::none},
    Transition{kBooting, Event::failed, kStopped, Action::none},
    Transition{kBooting, Event::timeout, kStopped, Action::send_stop},
    Transition{kBooting, Event::cancel, kDeleting, Action::send_delete},
    Transition{kBooting, Event::lost, kPrepareInit, Action::send_prepare},
    // editing/running: a stop that is not answered in time is sent again
    Transition{kRunning, Event::running, kRunning, Action::none},
    Transition{kRunning, Event::stop, kRunning, Action::send_stop},
    Transition{kRunning, Event::stopped, kStopped, Action::none},
    Transition{kRunning, Event::failed, kStopped, Action::none},
    Transition{kRunning, Event::timeout, kRunning, Action::send_stop},
    Transition{kRunning, Event::cancel, kDeleting, Action::send_delete},
    Transition{kRunning, Event::lost, kPrepareInit, Action::send_prepare},
    Transition{kRunning, Event::paused, kPaused, Action::none},
    Transition{kRunning, Event::migrating, kMigrating, Action::none},
    Transition{kRunning, Event::operate, kRunning, Action::send_operation},
    Transition{kRunning, Event::refused, kRunning, Action::none},
    // editing/paused: its memory is kept, its cpus stand still
    Transition{kPaused, Event::paused, kPaused, Action::none},
    Transition{kPaused, Event::running, kRunning, Action::none},
    Transition{kPaused, Event::stop, kPaused, Action::send_stop},
    Transition{kPaused, Event::stopped, kStopped, Action::none},
    Transition{kPaused, Event::failed, kStopped, Action::none},
    Transition{kPaused, Event::timeout, kPaused, Action::send_stop},
    Transition{kPaused, Event::cancel, kDeleting, Action::send_delete},
    Transition{kPaused, Event::lost, kPrepareInit, Action::send_prepare},
    Transition{kPaused, Event::operate, kPaused, Action::send_operation},
    Transition{kPaused, Event::refused, kPaused, Action::none},
    // editing/migrating: running, and on its way to another node. Refused: it runs on where it was
    Transition{kMigrating, Event::migrating, kMigrating, Action::none},
    Transition{kMigrating, Event::running, kRunning, Action::none},
    Transition{kMigrating, Event::paused, kPaused, Action::none},
    Transition{kMigrating, Event::refused, kRunning, Action::none},
    Transition{kMigrating, Event::stop, kMigrating, Action::send_stop},
    Transition{kMigrating, Event::stopped, kStopped, Action::none},
    Transition{kMigrating, Event::failed, kStopped, Action::none},
    Transition{kMigrating, Event::timeout, kMigrating, Action::send_stop},
    Transition{kMigrating, Event::cancel, kDeleting, Action::send_delete},
    Transition{kMigrating, Event::lost, kPrepareInit, Action::send_prepare},
    // editing/stopped: the user's turn
    Transition{kStopped, Event::start, kPrepareInit, Action::send_prepare},
    Transition{kStopped, Event::stop, kStopped, Action::none},
    Transition{kStopped, Event::stopped, kStopped, Action::none},
    Transition{kStopped, Event::submit, kSubmitInit, Action::send_submit},
    Transition{kStopped, Event::failed, kStopped, Action::none},
    Transition{kStopped, Event::timeout, kStopped, Action::none},
    Transition{kStopped, Event::cancel, kDeleting, Action::send_delete},
    Transition{kStopped, Event::operate, kStopped, Action::send_operation},
    Transition{kStopped, Event::refused, kStopped, Action::none},
    // submitting/init: waiting for the node (or for an upload to begin), or failed and waiting for the user
    Transition{kSubmitInit, Event::submit, kSubmitInit, Action::send_submit},
    Transition{kSubmitInit, Event::uploading, kUploading, Action::none},
    Transition{kSubmitInit, Event::submitted, kSubmitted, Action::publish_version},
    Transition{kSubmitInit, Event::failed, kSubmitInit, Action::none},
    Transition{kSubmitInit, Event::timeout, kSubmitInit, Action::none},
    Transition{kSubmitInit, Event::cancel, kDeleting, Action::send_delete},
    // submitting/uploading
    Transition{kUploading, Event::uploading, kUploading, Action::none},
    Transition{kUploading, Event::submitted, kSubmitted, Action::publish_version},
    Transition{kUploading, Event::failed, kSubmitInit, Action::none},
    Transition{kUploading, Event::timeout, kSubmitInit, Action::none},
    Transition{kUploading, Event::cancel, kDeleting, Action::send_delete},
    // submitting/done: published; the node still has to forget what it holds
    Transition{kSubmitted, Event::deleted, kGone, Action::release},
    Transition{kSubmitted, Event::failed, kSubmitted, Action::none},
    Transition{kSubmitted, Event::timeout, kSubmitted, Action::send_delete},
    Transition{kSubmitted, Event::cancel, kSubmitted, Action::send_delete},
    // editing/deleting: asked again until the node says it is gone
    Transition{kDeleting, Event::deleted, kGone, Action::release},
    Transition{kDeleting, Event::failed, kDeleting, Action::none},
    Transition{kDeleting, Event::timeout, kDeleting, Action::send_delete},
    Transition{kDeleting, Event::cancel, kDeleting, Action::send_delete},
};

constexpr std::optional<Transition> find(TaskState from, Event event) {
  for (const auto& row : kTable) {
    if (row.from.phase == from.phase && row.from.state == from.state && row.event == event) return row;
  }
  return std::nullopt;
}

constexpr bool same(TaskState a, TaskState b) {
  return a.phase == b.phase && a.state == b.state;
}

constexpr bool unambiguous() {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    for (std::size_t j = i + 1; j < kTable.size(); ++j) {
      if (same(kTable[i].from, kTable[j].from) && kTable[i].event == kTable[j].event) return false;
    }
  }
  return true;
}

constexpr bool live_states_handle(Event event) {
  for (const auto& state : kStates) {
    if (!same(state, kGone) && !find(state, event)) return false;
  }
  return true;
}

constexpr bool nothing_leaves_gone() {
  for (const auto& row : kTable) {
    if (same(row.from, kGone)) return false;
  }
  return true;
}

constexpr std::size_t index_of(TaskState state) {
  std::size_t at = 0;
  while (at < kStates.size() && !same(kStates[at], state)) ++at;
  return at;
}

// From every live state `gone` is reachable: nothing can be stuck for ever.
constexpr bool all_can_end() {
  std::array<bool, kStates.size()> ends{};
  ends[index_of(kGone)] = true;
  for (std::size_t round = 0; round < kStates.size(); ++round) {
    for (const auto& row : kTable) {
      if (ends[index_of(row.to)]) ends[index_of(row.from)] = true;
    }
  }
  for (bool one : ends) {
    if (!one) return false;
  }
  return true;
}

static_assert(unambiguous(), "two rows for one state and event");
static_assert(live_states_handle(Event::timeout), "a live state without a way out of a time-out");
static_assert(live_states_handle(Event::cancel), "a live state that cannot be cancelled");
static_assert(live_states_handle(Event::failed), "a live state that does not expect failure");
static_assert(nothing_leaves_gone(), "a row leaves the terminal state");
static_assert(all_can_end(), "a state from which a task cannot end");

}  // namespace

std::span<const Transition> table() {
  return kTable;
}

std::optional<Transition> step(TaskState from, Event event) {
  return find(from, event);
}

std::span<const TaskState> states() {
  return kStates;
}

bool is_transient(TaskState state) {
  return state != kRunning && state != kPaused && state != kStopped && state != kGone;
}

bool holds_capacity(TaskState state) {
  return state.phase == Phase::preparing || state == kBooting || state == kRunning || state == kPaused ||
         state == kMigrating || state == kDeleting;
}

}  // namespace educloud::task
