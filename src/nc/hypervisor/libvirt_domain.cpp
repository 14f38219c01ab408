#include "nc/hypervisor/libvirt_domain.hpp"

#include <filesystem>

#include <libvirt/virterror.h>

#include "nc/hypervisor/domain_xml.hpp"
#include "nc/hypervisor/libvirt_connection.hpp"
#include "nc/hypervisor/png.hpp"

namespace educloud::nc {
namespace {

constexpr std::size_t kStreamPiece = 64 * 1024;
constexpr int kAgentSeconds = 2;  // a guest that is busy booting does not hold up the others
constexpr std::size_t kHostnameBytes = 64;

/// libvirt's list of named numbers.
class Params {
 public:
  ~Params() { virTypedParamsFree(params_, count_); }
  Params() = default;
  Params(const Params&) = delete;
  Params& operator=(const Params&) = delete;
  void add(const char* name, std::uint64_t value) {
    virTypedParamsAddULLong(&params_, &count_, &room_, name, value);
  }
  void add(const char* name, std::int64_t value) {
    virTypedParamsAddLLong(&params_, &count_, &room_, name, value);
  }
  virTypedParameterPtr data() { return params_; }
  int size() const { return count_; }

 private:
  virTypedParameterPtr params_ = nullptr;
  int count_ = 0;
  int room_ = 0;
};

std::string named(std::string_view what, virDomainPtr domain) {
  const char* name = virDomainGetName(domain);
  return std::string(what) + " VM " + (name != nullptr ? name : "");
}

/// What a guest says is shown to people: printable, and short.
std::string clean(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kHostnameBytes)) {
    if (c > 0x20 && c < 0x7f) out.push_back(c);
  }
  return out;
}

std::string first_ipv4(virDomainPtr domain) {
  virDomainInterfacePtr* cards = nullptr;
  const int count = virDomainInterfaceAddresses(domain, &cards, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0);
  std::string found;
  for (int i = 0; i < count; ++i) {
    for (unsigned a = 0; a < cards[i]->naddrs; ++a) {
      const auto& one = cards[i]->addrs[a];
      const std::string_view text = one.addr != nullptr ? one.addr : "";
      if (found.empty() && one.type == VIR_IP_ADDR_TYPE_IPV4 && !text.starts_with("127."))
        found = clean(text);
    }
    virDomainInterfaceFree(cards[i]);
  }
  free(cards);
  return found;
}

}  // namespace

bool has_cgroup2() {
  std::error_code ignored;
  return std::filesystem::exists("/sys/fs/cgroup/cgroup.controllers", ignored);
}

Result<VmState> domain_state(virDomainPtr domain) {
  int state = 0;
  if (virDomainGetState(domain, &state, nullptr, 0) < 0)
    return fail(libvirt_error(named("ask state of", domain)));
  return from_libvirt(state);
}

Result<> pause_domain(virDomainPtr domain) {
  if (auto state = domain_state(domain); state && *state == VmState::paused) return {};
  if (virDomainSuspend(domain) == 0) return {};
  return fail(libvirt_error(named("pause", domain)));
}

Result<> resume_domain(virDomainPtr domain) {
  if (auto state = domain_state(domain); state && *state == VmState::running) return {};
  if (virDomainResume(domain) == 0) return {};
  return fail(libvirt_error(named("resume", domain)));
}

Result<> reboot_domain(virDomainPtr domain) {
  // Without flags: by the agent where there is one, else by the power button.
  if (virDomainReboot(domain, VIR_DOMAIN_REBOOT_DEFAULT) == 0) return {};
  return fail(libvirt_error(named("restart", domain)));
}

Result<> reset_domain(virDomainPtr domain) {
  if (virDomainReset(domain, 0) == 0) return {};
  return fail(libvirt_error(named("reset", domain)));
}

Result<> limit_domain(virDomainPtr domain, const msg::Limits& limits) {
  virDomainInfo info{};
  const LibvirtText xml(virDomainGetXMLDesc(domain, 0));
  if (!xml || virDomainGetInfo(domain, &info) < 0) return fail(libvirt_error(named("look at", domain)));
  Params cpu;
  cpu.add(VIR_DOMAIN_SCHEDULER_CPU_SHARES, cpu_shares(limits, has_cgroup2()));
  cpu.add(VIR_DOMAIN_SCHEDULER_VCPU_PERIOD, kCpuPeriodUs);
  cpu.add(VIR_DOMAIN_SCHEDULER_VCPU_QUOTA, cpu_quota_us(limits, info.nrVirtCpu).value_or(-1));
  if (virDomainSetSchedulerParametersFlags(domain, cpu.data(), cpu.size(), VIR_DOMAIN_AFFECT_LIVE) < 0)
    return fail(libvirt_error(named("limit the cpus of", domain)));
  for (const auto& disk : written_disks(xml.get())) {
    Params io;
    io.add(VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC, static_cast<std::uint64_t>(limits.disk_mib_s) << 20);
    io.add(VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC, static_cast<std::uint64_t>(limits.disk_iops));
    if (virDomainSetBlockIoTune(domain, disk.c_str(), io.data(), io.size(), VIR_DOMAIN_AFFECT_LIVE) < 0)
      return fail(libvirt_error(named("limit disk " + disk + " of", domain)));
  }
  return {};
}

Result<GuestFacts> domain_facts(virDomainPtr domain) {
  GuestFacts facts;
  // The test driver has no agents; a guest may have none, or not yet.
  if (virDomainAgentSetResponseTimeout(domain, kAgentSeconds, 0) < 0) return facts;
  const LibvirtText hostname(virDomainGetHostname(domain, VIR_DOMAIN_GET_HOSTNAME_AGENT));
  if (!hostname) return facts;
  facts.hostname = clean(hostname.get());
  facts.ip = first_ipv4(domain);
  return facts;
}

Result<std::string> domain_recipe(virDomainPtr domain) {
  const LibvirtText xml(virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE));
  if (!xml) return fail(libvirt_error(named("look at", domain)));
  return without_incoming(xml.get());
}

Result<std::string> domain_screenshot(virConnectPtr connection, virDomainPtr domain) {
  const StreamRef stream(virStreamNew(connection, 0));
  if (!stream) return fail(libvirt_error("open a stream"));
  const LibvirtText mime(virDomainScreenshot(domain, stream.get(), 0, 0));
  if (!mime) return fail(libvirt_error(named("screenshot of", domain)));
  std::string picture;
  std::array<char, kStreamPiece> piece;
  for (;;) {
    const int got = virStreamRecv(stream.get(), piece.data(), piece.size());
    if (got < 0) return fail(libvirt_error(named("screenshot of", domain)));
    if (got == 0) break;
    picture.append(piece.data(), static_cast<std::size_t>(got));
    if (picture.size() > kScreenshotBytes) {
      virStreamAbort(stream.get());
      return fail(ErrorCode::too_large, named("the screenshot of", domain) + " is over 64 MiB");
    }
  }
  virStreamFinish(stream.get());
  return to_png(std::move(picture));
}

std::optional<VmInfo> describe_domain(virDomainPtr domain, const std::filesystem::path& pids) {
  VmInfo vm;
  const char* name = virDomainGetName(domain);
  auto insid = InstanceId::parse(name != nullptr ? name : "");
  if (!insid) return std::nullopt;
  vm.insid = std::move(*insid);
  const LibvirtText xml(virDomainGetXMLDesc(domain, 0));
  virDomainInfo info{};
  if (!xml || virDomainGetInfo(domain, &info) < 0) return std::nullopt;
  auto task = task_of_domain(xml.get());
  if (!task) return std::nullopt;
  vm.tid = task->tid;
  vm.cmdid = task->cmdid;
  vm.epoch = task->epoch;
  vm.exclusive = task->exclusive;
  vm.incoming = task->incoming;
  std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
  if (virDomainGetUUIDString(domain, uuid.data()) == 0) vm.uuid = uuid.data();
  vm.memory_mib = static_cast<std::int64_t>(info.maxMem / 1024);
  vm.cpus = info.nrVirtCpu;
  vm.cpu_time_ns = info.cpuTime;
  vm.state = from_libvirt(info.state);
  vm.resident_mib = resident_mib(pids, name);
  return vm;
}

}  // namespace educloud::nc
