#include "nc/hypervisor/domain_xml.hpp"

#include <sstream>

#include <pugixml.hpp>

namespace educloud::nc {
namespace {

constexpr const char* kTaskNamespace = "https://educloud.invalid/nc/task/1";
constexpr const char* kQemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0";

// libvirt hands out PCI slots from the low end and does not know of a device on QEMU's command line.
constexpr const char* kNicSlot = "0x1e";

// Not a word to libvirt: the migration is ours to drive.
constexpr const char* kIncoming[] = {"-incoming", "defer"};

using Node = pugi::xml_node;

Node child(Node parent, const char* name) {
  return parent.append_child(name);
}

void text(Node parent, const char* name, const std::string& value) {
  child(parent, name).text().set(value.c_str());
}

void attribute(Node node, const char* name, const std::string& value) {
  node.append_attribute(name).set_value(value.c_str());
}

/// QEMU asks again for this long, with the guest's requests waiting, when the server restarts. libvirt before
/// 9.1 reads over it.
constexpr const char* kReconnectSeconds = "3600";

void add_nbd_source(Node backing, const DiskLayer& layer) {
  Node source = child(backing, "source");
  attribute(source, "protocol", "nbd");
  attribute(source, "name", "disk");
  Node host = child(source, "host");
  attribute(host, "transport", "unix");
  attribute(host, "socket", layer.file.string());
  attribute(child(source, "reconnect"), "delay", kReconnectSeconds);
}

void add_layers(Node disk, const std::vector<DiskLayer>& layers) {
  // libvirt follows a chain that is written out and never looks into the files for more.
  Node parent = disk;
  for (std::size_t i = 1; i < layers.size(); ++i) {
    Node backing = child(parent, "backingStore");
    attribute(backing, "type", layers[i].is_nbd ? "network" : "file");
    attribute(child(backing, "format"), "type", layers[i].format);
    if (layers[i].is_nbd) {
      add_nbd_source(backing, layers[i]);
    } else {
      attribute(child(backing, "source"), "file", layers[i].file.string());
    }
    parent = backing;
  }
  child(parent, "backingStore");
}

/// In the bus's last place, so that the guest's own disks keep their names.
void add_seed(Node devices, const VmSpec& spec) {
  Node disk = child(devices, "disk");
  attribute(disk, "type", "file");
  attribute(disk, "device", "disk");
  Node driver = child(disk, "driver");
  attribute(driver, "name", "qemu");
  attribute(driver, "type", "raw");
  attribute(child(disk, "source"), "file", spec.seed.string());
  child(disk, "backingStore");
  Node target = child(disk, "target");
  attribute(target, "dev", spec.disk_bus == "virtio" ? "vdz" : spec.disk_bus == "ide" ? "hdd" : "sdf");
  attribute(target, "bus", spec.disk_bus);
  // QEMU has no IDE or SATA disk that is read-only; the file is this instance's own and made anew at a start.
  if (spec.disk_bus == "virtio") child(disk, "readonly");
}

void add_io_limits(Node disk, const msg::Limits& limits) {
  if (limits.disk_iops == 0 && limits.disk_mib_s == 0) return;
  Node tune = child(disk, "iotune");
  if (limits.disk_mib_s != 0) text(tune, "total_bytes_sec", std::to_string(limits.disk_mib_s << 20));
  if (limits.disk_iops != 0) text(tune, "total_iops_sec", std::to_string(limits.disk_iops));
}

void add_cpu_limits(Node domain, const VmSpec& spec, bool cgroup2) {
  const auto quota = cpu_quota_us(spec.limits, spec.cpus);
  if (!quota && spec.limits.cpu_weight == 0) return;
  Node tune = child(domain, "cputune");
  if (spec.limits.cpu_weight != 0) text(tune, "shares", std::to_string(cpu_shares(spec.limits, cgroup2)));
  if (!quota) return;
  text(tune, "period", std::to_string(kCpuPeriodUs));
  text(tune, "quota", std::to_string(*quota));
}

/// The n-th disk on the VM's bus: vda, vdb; sda; hda.
void add_target(Node disk, const VmSpec& spec, std::size_t n) {
  const std::string bus = spec.disk_bus == "virtio" ? "vd" : spec.disk_bus == "ide" ? "hd" : "sd";
  Node target = child(disk, "target");
  attribute(target, "dev", bus + static_cast<char>('a' + n));
  attribute(target, "bus", spec.disk_bus);
}

void add_file_disk(Node devices, const VmSpec& spec, const std::vector<DiskLayer>& layers, std::size_t n,
                   bool is_database = false) {
  Node disk = child(devices, "disk");
  attribute(disk, "type", "file");
  attribute(disk, "device", "disk");
  Node driver = child(disk, "driver");
  attribute(driver, "name", "qemu");
  attribute(driver, "type", layers.front().format);
  // The guest's flushes reach the disk, and it needs no O_DIRECT, which tmpfs and some others refuse.
  attribute(driver, "cache", is_database ? "writethrough" : "writeback");
  attribute(driver, "discard", "unmap");
  attribute(driver, "detect_zeroes", "unmap");
  attribute(child(disk, "source"), "file", layers.front().file.string());
  add_layers(disk, layers);
  add_target(disk, spec, n);
  add_io_limits(disk, spec.limits);
  if (n > 0) text(disk, "serial", is_database ? "database" : "data");
}

/// Raw, and on the other host's disk before the guest is told that it is written.
Node network_disk(Node devices) {
  Node disk = child(devices, "disk");
  attribute(disk, "type", "network");
  attribute(disk, "device", "disk");
  Node driver = child(disk, "driver");
  attribute(driver, "name", "qemu");
  attribute(driver, "type", "raw");
  attribute(driver, "cache", "writethrough");
  return disk;
}

/// By QEMU's own initiator, which logs in again by itself for as long as it takes: the guest waits.
void add_iscsi_disk(Node devices, const VmSpec& spec, const IscsiDisk& iscsi, std::size_t n) {
  Node disk = network_disk(devices);
  Node source = child(disk, "source");
  attribute(source, "protocol", "iscsi");
  attribute(source, "name", iscsi.iqn + "/" + std::to_string(iscsi.lun));
  Node host = child(source, "host");
  attribute(host, "name", iscsi.host);
  attribute(host, "port", std::to_string(iscsi.port));
  Node auth = child(source, "auth");
  attribute(auth, "username", iscsi.user);
  Node secret = child(auth, "secret");
  attribute(secret, "type", "iscsi");
  attribute(secret, "uuid", secret_uuid(spec.insid));
  add_target(disk, spec, n);
  add_io_limits(disk, spec.limits);
  text(disk, "serial", "database");
}

/// Through a qemu-nbd on this host, which speaks TLS to the cc and holds requests back while that is away.
void add_nbd_disk(Node devices, const VmSpec& spec, const DiskLayer& layer, std::size_t n) {
  Node disk = network_disk(devices);
  add_nbd_source(disk, layer);
  add_target(disk, spec, n);
  add_io_limits(disk, spec.limits);
  text(disk, "serial", "database");
}

void add_disks(Node devices, const VmSpec& spec) {
  std::size_t n = 0;
  add_file_disk(devices, spec, spec.disk, n);
  for (const auto& extra : spec.extra) {
    ++n;
    if (extra.iscsi) {
      add_iscsi_disk(devices, spec, *extra.iscsi, n);
    } else if (extra.layers.front().is_nbd) {
      add_nbd_disk(devices, spec, extra.layers.front(), n);
    } else {
      add_file_disk(devices, spec, extra.layers, n, extra.kind == ExtraDisk::Kind::database);
    }
  }
}

void add_console(Node devices, const VmSpec& spec) {
  Node serial = child(devices, "serial");
  attribute(serial, "type", "file");
  Node source = child(serial, "source");
  attribute(source, "path", spec.console_log.string());
  attribute(source, "append", "on");  // O_APPEND: the file can be cut while the guest writes
  attribute(child(serial, "target"), "port", "0");
}

void add_display(Node devices, const VmSpec& spec) {
  if (spec.display_port != 0) {
    Node graphics = child(devices, "graphics");
    attribute(graphics, "type", "vnc");
    attribute(graphics, "port", std::to_string(spec.display_port));
    attribute(graphics, "autoport", "no");
    attribute(graphics, "passwd", spec.display_password);
    Node listen = child(graphics, "listen");
    attribute(listen, "type", "address");
    attribute(listen, "address", spec.display_address);
  }
  Node model = child(child(devices, "video"), "model");
  attribute(model, "type", "vga");
  attribute(model, "vram", "16384");
  attribute(model, "heads", "1");
}

/// QEMU starts a server for each connection that the guest opens to it; nobody else reaches that.
std::string smb_forward(const VmSpec& spec) {
  const std::string folder = spec.smb.string();
  return ",guestfwd=tcp:10.0.2.4:445-cmd:/usr/sbin/smbd -l " + folder + " -s " + folder + "/smb.conf";
}

/// libvirt forbids QEMU to start programs, and cannot be told to allow that one: its sandbox makes room for
/// one that differs in only this. The server also needs to call setuid, if only to stay who it is.
void add_smb_sandbox(Node domain, Node line) {
  for (const char* arg :
       {"-sandbox", "on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny"}) {
    attribute(child(line, "qemu:arg"), "value", arg);
  }
  attribute(child(child(domain, "qemu:capabilities"), "qemu:del"), "capability", "seccomp-sandbox");
}

bool has_virtiofs(const VmSpec& spec) {
  return spec.folder_protocol == FolderProtocol::virtiofs && !spec.folders.empty();
}

/// Their server reads and writes the guest's memory.
void add_shared_memory(Node domain) {
  Node backing = child(domain, "memoryBacking");
  attribute(child(backing, "source"), "type", "memfd");
  attribute(child(backing, "access"), "mode", "shared");
}

void add_folders(Node devices, const VmSpec& spec) {
  if (!has_virtiofs(spec)) return;
  for (const auto& folder : spec.folders) {
    Node filesystem = child(devices, "filesystem");
    attribute(filesystem, "type", "mount");
    attribute(filesystem, "accessmode", "passthrough");
    attribute(child(filesystem, "driver"), "type", "virtiofs");
    attribute(child(filesystem, "binary"), "path", "/usr/lib/qemu/virtiofsd");
    attribute(child(filesystem, "source"), "dir", folder.source.string());
    attribute(child(filesystem, "target"), "dir", folder.drive);
  }
}

void add_network(Node domain, const VmSpec& spec) {
  // libvirt 9 can forward ports of a user-mode network only through passt, which Debian 12 has not.
  std::string netdev = "user,id=edunet0,restrict=" + std::string(spec.guest_egress ? "off" : "on");
  if (!spec.smb.empty()) netdev += smb_forward(spec);
  if (spec.web_port != 0) {
    netdev += ",hostfwd=tcp:" + spec.web_address + ":" + std::to_string(spec.web_port) + "-:80";
  }
  Node line = child(domain, "qemu:commandline");
  for (const std::string& arg :
       {std::string("-netdev"), netdev, std::string("-device"),
        spec.nic_model + ",netdev=edunet0,mac=" + spec.mac + ",bus=pci.0,addr=" + kNicSlot}) {
    attribute(child(line, "qemu:arg"), "value", arg);
  }
  if (!spec.smb.empty()) add_smb_sandbox(domain, line);
  if (!spec.incoming) return;
  for (const char* arg : kIncoming) attribute(child(line, "qemu:arg"), "value", arg);
}

void add_devices(Node domain, const VmSpec& spec) {
  Node devices = child(domain, "devices");
  add_disks(devices, spec);
  if (!spec.seed.empty()) add_seed(devices, spec);
  add_folders(devices, spec);
  attribute(child(devices, "controller"), "type", "usb");
  attribute(devices.last_child(), "model", "none");
  add_console(devices, spec);
  Node channel = child(devices, "channel");
  attribute(channel, "type", "unix");
  Node target = child(channel, "target");
  attribute(target, "type", "virtio");
  attribute(target, "name", "org.qemu.guest_agent.0");
  add_display(devices, spec);
  Node rng = child(devices, "rng");
  attribute(rng, "model", "virtio");
  Node backend = child(rng, "backend");
  attribute(backend, "model", "random");
  backend.text().set("/dev/urandom");
  attribute(child(devices, "memballoon"), "model", "virtio");
}

bool is_incoming(Node domain) {
  const auto args = domain.child("qemu:commandline").children("qemu:arg");
  return std::any_of(args.begin(), args.end(), [](Node arg) {
    return std::string_view(arg.attribute("value").value()) == kIncoming[0];
  });
}

}  // namespace

std::string domain_xml(const VmSpec& spec, const HostTraits& host) {
  pugi::xml_document document;
  Node domain = child(document, "domain");
  attribute(domain, "type", host.kvm ? "kvm" : "qemu");
  attribute(domain, "xmlns:qemu", kQemuNamespace);
  text(domain, "name", spec.insid.str());
  Node task = child(child(domain, "metadata"), "educloud:task");
  attribute(task, "xmlns:educloud", kTaskNamespace);
  attribute(task, "tid", spec.tid.str());
  attribute(task, "cmdid", spec.cmdid);
  attribute(task, "epoch", std::to_string(spec.epoch));
  if (spec.exclusive) attribute(task, "exclusive", "1");
  Node memory = child(domain, "memory");
  attribute(memory, "unit", "MiB");
  memory.text().set(std::to_string(spec.memory_mib).c_str());
  if (has_virtiofs(spec)) add_shared_memory(domain);
  text(domain, "vcpu", std::to_string(spec.cpus));
  add_cpu_limits(domain, spec, host.cgroup2);
  Node os = child(domain, "os");
  Node type = child(os, "type");
  attribute(type, "arch", "x86_64");
  attribute(type, "machine",
            "pc");  // boots in half the time of q35 under TCG, and old systems know its devices
  type.text().set("hvm");
  attribute(child(os, "boot"), "dev", "hd");
  Node features = child(domain, "features");
  child(features, "acpi");
  child(features, "apic");
  if (host.kvm) attribute(child(domain, "cpu"), "mode", "host-passthrough");
  attribute(child(domain, "clock"), "offset", "utc");
  text(domain, "on_poweroff", "destroy");
  text(domain, "on_reboot", "restart");
  text(domain, "on_crash", "destroy");
  add_devices(domain, spec);
  add_network(domain, spec);
  std::ostringstream out;
  document.save(out, " ", pugi::format_indent | pugi::format_no_declaration);
  return out.str();
}

std::string without_incoming(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size())) return xml;
  Node line = document.child("domain").child("qemu:commandline");
  std::vector<Node> theirs;
  for (Node arg : line.children("qemu:arg")) {
    const std::string_view value = arg.attribute("value").value();
    if (value == kIncoming[0] || value == kIncoming[1]) theirs.push_back(arg);
  }
  if (theirs.empty()) return xml;
  for (const auto& arg : theirs) line.remove_child(arg);
  std::ostringstream out;
  document.save(out, " ", pugi::format_indent | pugi::format_no_declaration);
  return out.str();
}

std::vector<std::string> written_disks(const std::string& xml) {
  std::vector<std::string> all;
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size())) return all;
  for (Node disk : document.child("domain").child("devices").children("disk")) {
    if (disk.child("readonly") || std::string_view(disk.attribute("device").value()) == "cdrom") continue;
    all.emplace_back(disk.child("target").attribute("dev").value());
  }
  return all;
}

Result<DomainTask> task_of_domain(const std::string& xml) {
  pugi::xml_document document;
  if (!document.load_buffer(xml.data(), xml.size()))
    return fail(ErrorCode::corrupt, "domain XML cannot be read");
  for (Node node : document.child("domain").child("metadata").children()) {
    // The prefix is libvirt's choice; what counts is the namespace.
    for (const auto& item : node.attributes()) {
      if (std::string_view(item.name()).starts_with("xmlns") &&
          std::string_view(item.value()) == kTaskNamespace) {
        return DomainTask{node.attribute("tid").value(), node.attribute("cmdid").value(),
                          node.attribute("epoch").as_llong(), node.attribute("exclusive").as_int() == 1,
                          is_incoming(document.child("domain"))};
      }
    }
  }
  return fail(ErrorCode::not_found, "not a domain of educloud");
}

}  // namespace educloud::nc
