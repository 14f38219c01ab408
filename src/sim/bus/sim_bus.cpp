#include "sim/bus/sim_bus.hpp"

namespace educloud::sim {
namespace {

constexpr std::int64_t kConfirmTimeoutMs = 30'000;  ///< as RabbitOptions
constexpr std::int64_t kOverdueLookMs = 5'000;
constexpr std::size_t kMostPending = 4096;

}  // namespace

SimBus::SimBus(Broker& broker, std::string user, Process& process)
    : broker_(broker), user_(std::move(user)), process_(process) {
  broker_.buses_.push_back(this);
}

// Without a word to anybody: this is also how a killed process goes.
SimBus::~SimBus() {
  broker_.detach(*this);
  std::erase(broker_.buses_, this);
}

Result<> SimBus::publish(bus::Outgoing message, bus::OnOutcome on_outcome) {
  process_.crash_point();
  if (!started_ || stopped_) return fail(ErrorCode::unavailable, "the bus does not run");
  if (pending_.size() >= kMostPending) return fail(ErrorCode::exhausted, "too many messages wait");
  const std::uint64_t id = ++last_id_;
  auto& pending = pending_[id];
  pending.message = std::move(message);
  pending.on_outcome = std::move(on_outcome);
  pending.deadline = broker_.timeline_.now_ms() + kConfirmTimeoutMs;
  if (is_ready()) send(id, pending);
  process_.crash_point();
  return {};
}

void SimBus::subscribe(bus::Subscription subscription) {
  subscriptions_.push_back(std::move(subscription));
}

void SimBus::start(std::function<void()> on_ready) {
  on_ready_ = std::move(on_ready);
  started_ = true;
  connect_later();
  broker_.timeline_.every(life_, kOverdueLookMs, kOverdueLookMs, [this] {
    const auto now = broker_.timeline_.now_ms();
    fail_if([now](const Pending& pending) { return pending.deadline <= now; });
  });
}

void SimBus::stop() {
  if (std::exchange(stopped_, true)) return;
  online_ = false;
  ++session_;
  broker_.detach(*this);
  fail_if([](const Pending&) { return true; });
}

bool SimBus::is_ready() const {
  return online_ && !broker_.is_blocked();
}

void SimBus::connect_later() {
  broker_.timeline_.after(life_, broker_.rng_.between(20, 3000), [this] {
    if (online_ || stopped_) return;
    if (!broker_.is_up() || broker_.is_cut(user_)) return connect_later();
    online_ = true;
    broker_.attach(*this, subscriptions_);
    process_.run([this] {
      if (on_ready_) on_ready_();
      flush();
    });
  });
}

void SimBus::flush() {
  if (!is_ready()) return;
  for (auto& [id, pending] : pending_) {
    if (!pending.sent) send(id, pending);
  }
}

void SimBus::go_offline() {
  if (!online_) return;
  online_ = false;
  ++session_;
  broker_.detach(*this);
  broker_.timeline_.after(life_, 0, [this] { fail_if([](const Pending& pending) { return pending.sent; }); });
  connect_later();
}

void SimBus::send(std::uint64_t id, Pending& pending) {
  pending.sent = true;
  Broker& broker = broker_;
  const auto session = session_;
  carry(
      publish_free_, session,
      [this, id, session, message = pending.message] {
        const auto outcome = broker_.route(message, user_);
        carry(confirm_free_, session,
              [this, id, outcome] { process_.run([this, id, outcome] { finish(id, outcome); }); }, {});
      },
      // It was on the wire when the connection or its process ended.
      [&broker, user = user_, message = pending.message] {
        if (broker.is_up() && broker.rng_.chance(0.5)) (void)broker.route(message, user);
      });
}

void SimBus::finish(std::uint64_t id, bus::Outcome outcome) {
  const auto at = pending_.find(id);
  if (at == pending_.end()) return;
  const auto told = std::move(at->second.on_outcome);
  pending_.erase(at);
  if (told) told(outcome);
}

void SimBus::fail_if(const std::function<bool(const Pending&)>& is_lost) {
  std::vector<std::uint64_t> lost;
  for (const auto& [id, pending] : pending_) {
    if (is_lost(pending)) lost.push_back(id);
  }
  if (lost.empty()) return;
  process_.run([this, lost = std::move(lost)] {
    for (const auto id : lost) finish(id, bus::Outcome::failed);
  });
}

void SimBus::carry(std::int64_t& free_at, std::uint64_t session, std::function<void()> arrive,
                   std::function<void()> lost) {
  const auto now = broker_.timeline_.now_ms();
  free_at = std::max(now + broker_.hop_ms(), free_at);
  broker_.timeline_.after(broker_.life_, free_at - now,
                          [this, alive = std::weak_ptr<const int>(life_), session, arrive = std::move(arrive),
                           lost = std::move(lost)] {
                            if (!alive.expired()) return land(session, arrive, lost);
                            if (lost) lost();
                          });
}

void SimBus::land(std::uint64_t session, std::function<void()> arrive, std::function<void()> lost) {
  if (session != session_) {
    if (lost) lost();
    return;
  }
  if (!broker_.is_cut(user_)) return arrive();
  // TCP sends again until it gets through or one of the ends gives up.
  broker_.timeline_.after(
      life_, broker_.cut_until_[user_] - broker_.timeline_.now_ms(),
      [this, session, arrive = std::move(arrive), lost = std::move(lost)] { land(session, arrive, lost); });
}

void SimBus::to_consumer(std::function<void()> what) {
  carry(deliver_free_, session_, [this, what = std::move(what)] { process_.run(what); }, {});
}

void SimBus::from_consumer(std::uint64_t session, std::function<void()> what) {
  carry(settle_free_, session, std::move(what), {});
}

}  // namespace educloud::sim
