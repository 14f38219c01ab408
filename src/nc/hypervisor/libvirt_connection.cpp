#include "nc/hypervisor/libvirt_connection.hpp"

#include <libvirt/virterror.h>
#include <unistd.h>

#include <charconv>
#include <future>

#include "common/obs/log.hpp"
#include "common/sys/file.hpp"

namespace educloud::nc {
namespace {

constexpr int kWakeMs = 200;  // without a timer the loop would sleep until the next event, and could not end

/// libvirt has one event loop per process; it must run as long as any connection is open.
class EventLoop {
 public:
  EventLoop() {
    virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});  // errors are returned, not printed
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0) {
      obs::error("libvirt.no_event_loop", {{"reason", libvirt_error("start").message}});
      return;
    }
    virEventAddTimeout(
        kWakeMs, [](int, void*) {}, nullptr, nullptr);
    thread_ = std::jthread([](std::stop_token stop) {
      while (!stop.stop_requested()) {
        if (virEventRunDefaultImpl() < 0) {
          obs::error("libvirt.event_loop", {{"reason", libvirt_error("run").message}});
          std::this_thread::sleep_for(std::chrono::milliseconds{kWakeMs});
        }
      }
    });
  }

 private:
  std::jthread thread_;
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != text.npos;
}

}  // namespace

void ensure_libvirt_events() {
  static EventLoop loop;
}

Error libvirt_error(std::string_view what) {
  const virError* last = virGetLastError();
  if (last == nullptr) return {ErrorCode::internal, std::string(what) + ": libvirt gave no reason", {}};
  const std::string reason = last->message != nullptr ? last->message : "no reason given";
  ErrorCode code = ErrorCode::internal;
  switch (last->code) {
    case VIR_ERR_NO_DOMAIN: code = ErrorCode::not_found; break;
    case VIR_ERR_DOM_EXIST:
    case VIR_ERR_OPERATION_INVALID: code = ErrorCode::conflict; break;
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
    case VIR_ERR_CONFIG_UNSUPPORTED: code = ErrorCode::invalid_argument; break;
    case VIR_ERR_NO_MEMORY: code = ErrorCode::exhausted; break;
    case VIR_ERR_NO_CONNECT:
    case VIR_ERR_INVALID_CONN:
    case VIR_ERR_AGENT_UNRESPONSIVE: code = ErrorCode::unavailable; break;
    case VIR_ERR_OPERATION_TIMEOUT: code = ErrorCode::timeout; break;
    default: break;
  }
  if (last->domain == VIR_FROM_RPC || last->domain == VIR_FROM_REMOTE) code = ErrorCode::unavailable;
  // QEMU's own words reach us only as text.
  if (contains(reason, "Address already in use") || contains(reason, "Could not set up host forwarding") ||
      contains(reason, "Failed to get \"write\" lock")) {
    code = ErrorCode::conflict;
  }
  if (contains(reason, "Cannot allocate memory") || contains(reason, "No space left"))
    code = ErrorCode::exhausted;
  return {code, std::string(what) + ": " + reason, {}};
}

bool is_confined(virConnectPtr connection) {
  const LibvirtText capabilities(virConnectGetCapabilities(connection));
  if (!capabilities) return false;
  const std::string_view text = capabilities.get();
  return text.find("<model>apparmor</model>") != text.npos ||
         text.find("<model>selinux</model>") != text.npos;
}

Result<unsigned> qemu_uid(virConnectPtr connection) {
  const LibvirtText capabilities(virConnectGetCapabilities(connection));
  if (!capabilities) return fail(libvirt_error("ask for the user of QEMU"));
  const std::string_view text = capabilities.get();
  const auto model = text.find("<model>dac</model>");
  // <baselabel type='qemu'>+64055:+108</baselabel>
  const auto label = model == text.npos ? model : text.find("<baselabel", model);
  const auto number = label == text.npos ? label : text.find(">+", label);
  unsigned uid = 0;
  if (number != text.npos) {
    const auto* begin = text.data() + number + 2;
    const auto parsed = std::from_chars(begin, text.data() + text.size(), uid);
    if (parsed.ec == std::errc() && parsed.ptr != begin) return uid;
  }
  return fail(ErrorCode::internal, "libvirt does not say which user QEMU runs as");
}

VmState from_libvirt(int state) {
  switch (state) {
    case VIR_DOMAIN_PAUSED:
    case VIR_DOMAIN_PMSUSPENDED: return VmState::paused;
    case VIR_DOMAIN_SHUTDOWN: return VmState::shutdown;
    case VIR_DOMAIN_SHUTOFF: return VmState::shutoff;
    case VIR_DOMAIN_CRASHED: return VmState::crashed;
    default: return VmState::running;
  }
}

std::optional<VmEvent> lifecycle_event(const char* domain_name, int event, int detail) {
  VmEvent out;
  out.insid = domain_name != nullptr ? domain_name : "";
  if (event == VIR_DOMAIN_EVENT_STARTED) {
    out.kind = VmEvent::Kind::started;
    return out;
  }
  if (event == VIR_DOMAIN_EVENT_RESUMED) {
    out.kind = VmEvent::Kind::resumed;
    out.detail = "the VM goes on";
    return out;
  }
  if (event == VIR_DOMAIN_EVENT_SUSPENDED) {
    out.kind = VmEvent::Kind::paused;
    out.detail =
        detail == VIR_DOMAIN_EVENT_SUSPENDED_IOERROR
            ? "the VM was paused: its disk has no room or does not answer; see the node, then resume it"
            : "the VM was paused on the host";
    return out;
  }
  if (event != VIR_DOMAIN_EVENT_STOPPED) return std::nullopt;
  switch (detail) {
    case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
      out.kind = VmEvent::Kind::stopped;
      out.detail = "the guest powered itself off";
      break;
    case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
      out.kind = VmEvent::Kind::stopped;
      out.detail = "it was ended on the host";
      break;
    case VIR_DOMAIN_EVENT_STOPPED_CRASHED:
      out.kind = VmEvent::Kind::crashed;
      out.detail = "the guest crashed";
      break;
    case VIR_DOMAIN_EVENT_STOPPED_FAILED:
      out.kind = VmEvent::Kind::crashed;
      out.detail = "QEMU ended unexpectedly; see /var/log/libvirt/qemu/" + out.insid + ".log on the node";
      break;
    default:
      out.kind = VmEvent::Kind::stopped;
      out.detail = "it was stopped";
      break;
  }
  return out;
}

std::filesystem::path pid_folder(std::string_view uri) {
  constexpr std::string_view kSocket = "socket=";
  const auto at = uri.find(kSocket);
  if (at == uri.npos) return "/run/libvirt/qemu";
  const auto socket = uri.substr(at + kSocket.size());
  return std::filesystem::path(socket.substr(0, socket.find('&'))).parent_path() / "qemu";
}

std::int64_t resident_mib(const std::filesystem::path& folder, const std::string& name) {
  const auto pid = sys::read_file(folder / (name + ".pid"), 64);
  if (!pid) return 0;
  const auto statm =
      sys::read_file("/proc/" + pid->substr(0, pid->find_first_not_of("0123456789")) + "/statm", 4096);
  if (!statm) return 0;
  long long pages = 0;  // the second number
  if (std::sscanf(statm->c_str(), "%*d %lld", &pages) != 1) return 0;
  return static_cast<std::int64_t>(pages) * ::sysconf(_SC_PAGESIZE) >> 20;
}

Result<> press_power_button(ConnectRef connection, DomainRef domain, std::chrono::milliseconds patience) {
  const auto pressed = std::make_shared<std::promise<Result<>>>();
  auto answer = pressed->get_future();
  std::thread([pressed, connection = std::move(connection), domain = std::move(domain)] {
    const std::string name = virDomainGetName(domain.get());
    pressed->set_value(virDomainShutdown(domain.get()) == 0 ? Result<>{}
                                                            : fail(libvirt_error("shut down VM " + name)));
  }).detach();
  if (answer.wait_for(patience) == std::future_status::ready) return answer.get();
  return fail(ErrorCode::timeout, "QEMU does not answer");
}

}  // namespace educloud::nc
