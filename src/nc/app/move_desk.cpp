#include "nc/app/move_desk.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <tuple>

#include "common/msg/codec.hpp"
#include "common/obs/log.hpp"
#include "common/sys/pause.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::nc {
namespace {

constexpr std::chrono::seconds kLook{1};

/// By its inode: in that directory QEMU may put a link to another socket, which we could reach as root.
Result<sys::Fd> connect_to(const std::filesystem::path& path) {
  const std::string text = path.string();
  auto inode = sys::open_file(path, O_PATH | O_NOFOLLOW);
  if (!inode) return inode;
  struct stat status {};
  if (::fstat(inode->get(), &status) != 0 || !S_ISSOCK(status.st_mode))
    return fail(ErrorCode::corrupt, text + " is no socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string alias = "/proc/self/fd/" + std::to_string(inode->get());
  alias.copy(address.sun_path, sizeof address.sun_path - 1);
  sys::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.is_open() || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(errno_error("connect to " + text, errno));
  return fd;
}

}  // namespace

/// A VM that is to come.
struct MoveDesk::Arrival {
  Arrival(InstanceId id, msg::Command said) : insid(std::move(id)), command(std::move(said)) {}
  const InstanceId insid;
  const msg::Command command;
  std::mutex mutex;
  std::string state = "preparing";         // under mutex: preparing, ready, failed
  std::uint64_t done = 0, total = 0;       // under mutex
  std::optional<Error> error;              // under mutex
  std::atomic<std::int64_t> heard_at = 0;  ///< boot_ms
  std::atomic<bool> over = false;          ///< taken over or dropped
  std::stop_source unwanted;               ///< what is made ready for it
  std::jthread worker;

  http::Response describe() {
    const std::lock_guard lock(mutex);
    if (error) return http::error_response(*error);
    return http::json_response({{"state", state}, {"bytes_done", done}, {"bytes_total", total}});
  }
};

void MoveDesk::add_routes(http::Router& router) {
  using http::Request;
  const std::string path = "/migrations/{insid}";
  router.add({"PUT", path, [this](const Request& request) { return announce(request); }});
  router.add({"GET", path, [this](const Request& request) { return look(request); }});
  router.add(
      {"GET", path + "/memory", [this](const Request& request) { return open_channel(request, true); }});
  router.add(
      {"GET", path + "/disks", [this](const Request& request) { return open_channel(request, false); }});
  router.add({"POST", path + "/take-over", [this](const Request& request) { return take_over(request); }});
  router.add({"DELETE", path, [this](const Request& request) { return drop(request); }});
}

void MoveDesk::stop() {
  std::map<std::string, std::shared_ptr<Arrival>> all;
  {
    const std::lock_guard lock(mutex_);
    all.swap(arrivals_);
  }
  for (auto& [insid, arrival] : all) arrival->worker.request_stop();
  for (auto& [insid, arrival] : all) {
    if (arrival->worker.joinable()) arrival->worker.join();
  }
}

Result<InstanceId> MoveDesk::admit(const http::Request& request) const {
  auto insid = InstanceId::parse(request.param("insid"));
  if (!insid) return insid;
  auto node = transfer::verify_grant(options_.node_key, "PUT", "/migrations/" + insid->str(), request.query,
                                     clock_.wall_ms() / 1000);
  if (!node) return fail(node.error());
  if (*node != options_.host) return fail(ErrorCode::permission_denied, "the grant is for node " + *node);
  return insid;
}

std::shared_ptr<MoveDesk::Arrival> MoveDesk::find(const InstanceId& insid) {
  const std::lock_guard lock(mutex_);
  const auto at = arrivals_.find(insid.str());
  if (at == arrivals_.end()) return nullptr;
  at->second->heard_at = clock_.boot_ms();
  return at->second;
}

http::Response MoveDesk::announce(const http::Request& request) {
  auto insid = admit(request);
  if (!insid) return http::error_response(insid.error());
  auto command = msg::parse<msg::Command>(request.body);
  if (!command) return http::error_response(command.error());
  auto tid = TaskId::parse(command->tid);
  if (!tid || tid->instance != *insid || command->nid != options_.host || !command->runtime_option)
    return http::error_response(
        {ErrorCode::invalid_argument, "the command is not about " + insid->str(), "tid"});
  auto arrival = find_or_begin(*insid, std::move(*command));
  if (!arrival) return http::error_response(arrival.error());
  return (*arrival)->describe();
}

Result<std::shared_ptr<MoveDesk::Arrival>> MoveDesk::find_or_begin(const InstanceId& insid,
                                                                   msg::Command command) {
  // Their threads are waited for where nobody waits for the lock.
  std::vector<std::shared_ptr<Arrival>> over;
  const std::lock_guard lock(mutex_);
  std::erase_if(arrivals_, [&](const auto& one) {
    if (one.first == insid.str() || !one.second->over.load()) return false;
    over.push_back(one.second);
    return true;
  });
  std::shared_ptr<Arrival> earlier;
  if (const auto at = arrivals_.find(insid.str()); at != arrivals_.end()) {
    earlier = at->second;
    earlier->heard_at = clock_.boot_ms();
    const auto& theirs = earlier->command;
    if (theirs.cmdid == command.cmdid) return earlier;
    if (std::tuple(command.epoch, command.attempt) <= std::tuple(theirs.epoch, theirs.attempt))
      return fail(ErrorCode::conflict, insid.str() + " is being received already by a later command");
    // Whoever announces it anew has it still: the earlier one does not come.
    earlier->over = true;
    earlier->worker.request_stop();
  } else if (arrivals_.size() >= kMaxArrivals) {
    return fail(ErrorCode::exhausted, "this node receives enough VMs already");
  }
  auto arrival = std::make_shared<Arrival>(insid, std::move(command));
  arrival->heard_at = clock_.boot_ms();
  arrivals_[insid.str()] = arrival;
  arrival->worker =
      std::jthread([this, earlier, arrival = arrival.get()](const std::stop_token& stop) mutable {
        if (earlier) {
          if (earlier->worker.joinable()) earlier->worker.join();
          earlier.reset();
          give_up(arrival->insid, "it is announced anew");
        }
        attend(*arrival, stop);
      });
  return arrival;
}

http::Response MoveDesk::look(const http::Request& request) {
  auto insid = admit(request);
  if (!insid) return http::error_response(insid.error());
  const auto arrival = find(*insid);
  if (!arrival)
    return http::error_response({ErrorCode::not_found, insid->str() + " was not announced here", {}});
  return arrival->describe();
}

http::Response MoveDesk::open_channel(const http::Request& request, bool memory) {
  auto insid = admit(request);
  if (!insid) return http::error_response(insid.error());
  if (!find(*insid))
    return http::error_response({ErrorCode::not_found, insid->str() + " was not announced here", {}});
  const auto places = operations_.places(*insid);
  auto qemu = connect_to(memory ? places.memory : places.disks);
  if (!qemu) return http::error_response({ErrorCode::unavailable, qemu.error().message, {}});
  return http::upgrade_response(request, MoveLink::kProtocol, std::move(*qemu));
}

http::Response MoveDesk::take_over(const http::Request& request) {
  auto insid = admit(request);
  if (!insid) return http::error_response(insid.error());
  const auto arrival = find(*insid);
  if (auto ok = operations_.take_over(*insid); !ok) return http::error_response(ok.error());
  if (arrival) arrival->over = true;
  obs::info("move.taken_over", {{"insid", insid->str()}});
  return http::json_response({{"state", "running"}});
}

http::Response MoveDesk::drop(const http::Request& request) {
  auto insid = admit(request);
  if (!insid) return http::error_response(insid.error());
  const auto arrival = find(*insid);
  if (arrival) {
    arrival->over = true;
    arrival->worker.request_stop();
  }
  if (auto ok = operations_.give_up(*insid); !ok) return http::error_response(ok.error());
  obs::info("move.dropped", {{"insid", insid->str()}});
  return http::json_response({{"state", "dropped"}});
}

void MoveDesk::give_up(const InstanceId& insid, std::string_view why) {
  auto ok = operations_.give_up(insid);
  obs::warn("move.given_up",
            {{"insid", insid.str()}, {"why", why}, {"reason", ok ? "" : ok.error().message}});
}

/// Makes it ready, then sees to it that a VM that nobody brings does not stay.
void MoveDesk::attend(Arrival& arrival, const std::stop_token& stop) {
  const auto tell = [&](std::uint64_t done, std::uint64_t total) {
    const std::lock_guard lock(arrival.mutex);
    arrival.done = done;
    arrival.total = total;
  };
  const std::stop_callback asked(stop, [&arrival] { arrival.unwanted.request_stop(); });
  Result<> ready;
  {
    // Who is not asked for does not go on for an hour.
    const std::jthread watch([&](const std::stop_token& done) {
      while (sys::pause(kLook, done)) {
        if (clock_.boot_ms() - arrival.heard_at >= kSilenceMs) arrival.unwanted.request_stop();
      }
    });
    ready = operations_.receive(arrival.command, tell, arrival.unwanted.get_token());
  }
  {
    const std::lock_guard lock(arrival.mutex);
    arrival.state = ready ? "ready" : "failed";
    if (!ready) arrival.error = ready.error();
  }
  if (!ready) {
    // What is here of another's is not ours to remove.
    if (ready.error().code != ErrorCode::conflict) give_up(arrival.insid, ready.error().message);
    arrival.over = true;
    return;
  }
  if (arrival.over) return give_up(arrival.insid, "it was dropped meanwhile");
  while (sys::pause(kLook, stop) && !arrival.over) {
    if (clock_.boot_ms() - arrival.heard_at < kSilenceMs) continue;
    auto arrived = hypervisor_.has_arrived(arrival.insid);
    // All of it is here: then the other node may have promised it to us, and clc decides.
    if (arrived && *arrived) continue;
    if (!arrived && arrived.error().code != ErrorCode::not_found) continue;
    arrival.over = true;
    give_up(arrival.insid, "the other node has said nothing for a minute");
  }
}

}  // namespace educloud::nc
