#include "common/task/state.hpp"

#include <array>
#include <utility>

namespace educloud::task {
namespace {

template <class E, std::size_t N>
using Names = std::array<std::pair<E, std::string_view>, N>;

constexpr Names<Phase, 3> kPhases{
    {{Phase::preparing, "preparing"}, {Phase::editing, "editing"}, {Phase::submitting, "submitting"}}};
constexpr Names<State, 12> kStates{{{State::init, "init"},
                                    {State::downloading, "downloading"},
                                    {State::cloning, "cloning"},
                                    {State::done, "done"},
                                    {State::stopped, "stopped"},
                                    {State::booting, "booting"},
                                    {State::running, "running"},
                                    {State::paused, "paused"},
                                    {State::migrating, "migrating"},
                                    {State::uploading, "uploading"},
                                    {State::deleting, "deleting"},
                                    {State::gone, "gone"}}};
constexpr Names<Event, 21> kEvents{
    {{Event::start, "start"},         {Event::stop, "stop"},         {Event::submit, "submit"},
     {Event::cancel, "cancel"},       {Event::operate, "operate"},   {Event::downloading, "downloading"},
     {Event::cloning, "cloning"},     {Event::prepared, "prepared"}, {Event::booting, "booting"},
     {Event::running, "running"},     {Event::paused, "paused"},     {Event::migrating, "migrating"},
     {Event::stopped, "stopped"},     {Event::refused, "refused"},   {Event::uploading, "uploading"},
     {Event::submitted, "submitted"}, {Event::deleted, "deleted"},   {Event::failed, "failed"},
     {Event::fetched, "fetched"},     {Event::timeout, "timeout"},   {Event::lost, "lost"}}};
constexpr Names<Action, 9> kActions{{{Action::none, "none"},
                                     {Action::send_prepare, "send_prepare"},
                                     {Action::send_run, "send_run"},
                                     {Action::send_stop, "send_stop"},
                                     {Action::send_operation, "send_operation"},
                                     {Action::send_submit, "send_submit"},
                                     {Action::send_delete, "send_delete"},
                                     {Action::publish_version, "publish_version"},
                                     {Action::release, "release"}}};

template <class E, std::size_t N>
std::string_view name_of(const Names<E, N>& names, E value) {
  for (const auto& [one, name] : names) {
    if (one == value) return name;
  }
  return "?";
}

template <class E, std::size_t N>
Result<E> value_of(const Names<E, N>& names, std::string_view text, std::string_view what) {
  for (const auto& [one, name] : names) {
    if (name == text) return one;
  }
  return fail(ErrorCode::invalid_argument,
              "unknown " + std::string(what) + " '" + std::string(text.substr(0, 40)) + "'",
              std::string(what));
}

}  // namespace

std::string_view to_string(Phase phase) {
  return name_of(kPhases, phase);
}
std::string_view to_string(State state) {
  return name_of(kStates, state);
}
std::string_view to_string(Event event) {
  return name_of(kEvents, event);
}
std::string_view to_string(Action action) {
  return name_of(kActions, action);
}
Result<Phase> parse_phase(std::string_view text) {
  return value_of(kPhases, text, "phase");
}
Result<State> parse_state(std::string_view text) {
  return value_of(kStates, text, "state");
}
Result<Event> parse_event(std::string_view text) {
  return value_of(kEvents, text, "event");
}

}  // namespace educloud::task
