#include "sim/world/chaos.hpp"

namespace educloud::sim {

Chaos::Chaos(World& world, std::uint64_t seed) : world_(world), rng_(seed) {
  for (const auto kind : {Kind::kill, Kind::reboot, Kind::broker, Kind::wipe, Kind::block, Kind::cut,
                          Kind::hang_up, Kind::unbind, Kind::guest, Kind::clock, Kind::pause}) {
    if (rng_.chance(0.4)) kinds_.push_back(kind);
  }
  pause_ms_ = rng_.between(2'000, 30'000);
  auto& weather = world_.broker.weather;
  if (rng_.chance(0.5)) weather.longest_hop_ms = rng_.between(5, 3000);
  if (rng_.chance(0.4)) weather.duplicate = 0.2;
  if (rng_.chance(0.4)) weather.reorder = 0.3;
  if (rng_.chance(0.2)) weather.lose = 0.05;
  if (rng_.chance(0.5)) crash_chance_ = rng_.chance(0.5) ? 0.002 : 0.02;
  for (auto& nc : world_.ncs) {
    if (rng_.chance(0.3)) nc->trouble.fetch = 0.4;
    if (rng_.chance(0.3)) nc->trouble.submit = 0.5;
    if (rng_.chance(0.3)) nc->trouble.start = 0.3;
    if (rng_.chance(0.3)) nc->trouble.slowest_job_ms = 20'000;
  }
}

void Chaos::begin() {
  for (auto* host : world_.hosts()) {
    host->crash_chance = crash_chance_;
    host->on_crash = [this, host] { plan_restart(*host); };
  }
  if (!kinds_.empty()) next();
}

void Chaos::plan_restart(Host& host) {
  count(Kind::kill);
  // systemd starts it again after 2 s; a host that was switched off takes longer.
  const auto delay = rng_.chance(0.8) ? rng_.between(500, 5'000) : rng_.between(5'000, 90'000);
  world_.timeline.after(life_, delay, [&host] { host.start(); });
}

void Chaos::next() {
  world_.timeline.after(life_, rng_.between(1, pause_ms_), [this] {
    strike(rng_.pick(kinds_));
    next();
  });
}

std::string Chaos::any_user() {
  std::vector<std::string> users{"clc", "walrus"};
  for (const auto& cc : world_.ccs) users.push_back("cc-" + cc->name());
  for (const auto& nc : world_.ncs) users.push_back("nc-" + nc->name());
  return rng_.pick(users);
}

/// A stopped process neither hears nor says anything; the broker hangs up on it.
void Chaos::pause_one() {
  const auto time = rng_.between(500, 120'000);
  Host* host = world_.clc.get();
  std::string user = "clc";
  if (rng_.chance(0.7)) {
    host = rng_.pick(world_.ncs).get();
    user = "nc-" + host->name();
  }
  world_.surroundings.tell("fault: " + host->name() + " is stopped for " + std::to_string(time / 1000) +
                           " s");
  host->pause(time);
  world_.broker.cut(user, time);
}

FaultCounts Chaos::counts() const {
  auto all = counts_;
  const auto& broker = world_.broker;
  constexpr auto kWeather = static_cast<std::size_t>(Kind::pause) + 1;
  static_assert(kWeather + 3 == kFaults.size());
  all.at(kWeather) = broker.duplicated;
  all.at(kWeather + 1) = broker.reordered;
  all.at(kWeather + 2) = broker.lost;
  return all;
}

void Chaos::strike(Kind kind) {
  // A kill counts where the process ends, for it may also end at a crash point.
  if (kind != Kind::kill && kind != Kind::guest) count(kind);
  const auto tell = [this](const std::string& what) { world_.surroundings.tell("fault: " + what); };
  auto& broker = world_.broker;
  switch (kind) {
    case Kind::kill: {
      auto hosts = world_.hosts();
      return rng_.pick(hosts)->crash();
    }
    case Kind::reboot: {
      auto& nc = *rng_.pick(world_.ncs);
      tell(nc.name() + " loses power");
      return nc.lose_power();
    }
    case Kind::broker: tell("the broker restarts"); return broker.restart(rng_.between(100, 40'000), false);
    case Kind::wipe:
      tell("the broker loses its data");
      return broker.restart(rng_.between(100, 20'000), true);
    case Kind::block: tell("the broker is full"); return broker.block(rng_.between(1'000, 40'000));
    case Kind::cut: {
      const auto user = any_user();
      tell(user + " is cut off");
      return broker.cut(user, rng_.between(500, 100'000));
    }
    case Kind::hang_up: return broker.hang_up(any_user());
    case Kind::unbind: {
      const auto& nc = *rng_.pick(world_.ncs);
      tell("no queue for " + nc.name());
      return broker.unbind("nc_cmd_queue." + nc.name(), rng_.between(1'000, 30'000));
    }
    case Kind::guest: {
      auto& nc = *rng_.pick(world_.ncs);
      const auto vms = nc.vms();
      if (vms.empty()) return;
      const auto& insid = vms[rng_.below(vms.size())].insid;
      tell("guest of " + insid + " ends");
      count(kind);
      return nc.end_guest(insid, rng_.chance(0.5));
    }
    case Kind::clock: {
      auto hosts = world_.hosts();
      auto& host = *rng_.pick(hosts);
      const auto skew = rng_.chance(0.5) ? 0 : rng_.between(-3'600'000, 3'600'000);
      tell("clock of " + host.name() + " jumps to " + std::to_string(skew / 1000) + " s");
      return host.clock().set_skew(skew);
    }
    case Kind::pause: return pause_one();
  }
}

void Chaos::end() {
  life_ = new_life();
  world_.broker.heal();
  for (auto& nc : world_.ncs) nc->trouble = {};
  for (auto* host : world_.hosts()) {
    host->crash_chance = 0;
    host->clock().set_skew(0);
    host->on_crash = [] {};
    host->start();
  }
  world_.surroundings.tell("faults are over");
}

}  // namespace educloud::sim
