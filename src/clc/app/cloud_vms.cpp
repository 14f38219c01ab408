#include "clc/app/cloud_impl.hpp"
#include "clc/app/passwords.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {

Result<> Cloud::Impl::size(store::Sql& sql, Instance& instance, std::string_view usage,
                           const std::string& vmtype, std::int64_t memory_mib, int cpus) {
  instance.vmtype = vmtype.empty() ? (usage == "server" ? "vssmall" : "vdsmall") : vmtype;
  const auto type = store::find_vmtype(sql, instance.vmtype);
  if (!type) {
    std::string known;
    for (const auto& one : store::list_vmtypes(sql)) known += (known.empty() ? "" : ", ") + one.name;
    return fail(ErrorCode::invalid_argument, "'vmtype' must be one of " + known, "vmtype");
  }
  instance.memory_mib = memory_mib == 0 ? type->memory_mib : memory_mib;
  instance.cpus = cpus == 0 ? type->cpus : cpus;
  if (instance.memory_mib < 64 || instance.memory_mib > 4'000'000) {
    return fail(ErrorCode::invalid_argument, "'memory_mib' must be 64 to 4000000", "memory_mib");
  }
  if (instance.cpus < 1 || instance.cpus > 256) {
    return fail(ErrorCode::invalid_argument, "'cpus' must be 1 to 256", "cpus");
  }
  return {};
}

Result<> Cloud::Impl::check_pins(store::Sql& sql, const std::string& cluster, const std::string& node) {
  if (!cluster.empty()) {
    const auto all = store::list_clusters(sql);
    const bool known =
        std::any_of(all.begin(), all.end(), [&](const auto& one) { return one.host == cluster; });
    if (!known) return fail(ErrorCode::not_found, "there is no cluster of that name", "cluster");
  }
  const auto pinned = store::find_node(sql, node);
  if (!node.empty() && !pinned) return fail(ErrorCode::not_found, "there is no node of that name", "node");
  if (!cluster.empty() && pinned && pinned->cluster != cluster) {
    return fail(ErrorCode::conflict,
                "node " + node + " is in cluster " + pinned->cluster + ", not " + cluster, "node");
  }
  return {};
}

Result<> Cloud::Impl::check_version(store::Sql& sql, const Image& image, int version, bool for_server) {
  if (version < 0) return fail(ErrorCode::invalid_argument, "'version' must not be negative", "version");
  const auto found = store::find_version(sql, image.imgid, version == 0 ? image.current_version : version);
  if (version != 0 && (!found || found->pruning)) {
    return fail(ErrorCode::not_found, "image " + image.name + " has no version " + std::to_string(version),
                "version");
  }
  if (!for_server) return {};
  if (!found) return fail(ErrorCode::conflict, "image " + image.name + " has no version yet");
  auto disk = engine.database_version(sql, image, *found);
  return disk ? Result<>{} : fail(disk.error());
}

VmView Cloud::Impl::vm_view(store::Sql& sql, const Principal& who, const Instance& instance) {
  VmView view;
  view.instance = instance;
  view.state = "defined";
  const auto type = store::find_vmtype(sql, instance.vmtype);
  view.limits = effective_limits(instance.limits, type ? type->limits : msg::Limits{});
  view.folder_protocol = instance.folder_protocol;
  if (const auto image = store::find_image(sql, instance.imgid)) {
    view.image_name = image->name;
    const auto os = store::find_ostype(sql, image->ostype);
    if (os && view.folder_protocol.empty()) view.folder_protocol = os->folder_protocol;
  }
  const auto task = store::open_task_of_instance(sql, instance.insid);
  if (!task) return view;
  view.task = engine.view(sql, *task);
  view.state = vm_state(*task);
  const auto guest = heartbeats.guest(task->node, task->cluster, instance.insid);
  view.hostname = guest.hostname;
  view.ip = guest.ip;
  const int display = store::port_of(sql, instance.insid, "display");
  if (display == 0) return view;
  Access access;
  access.address = guest.address;
  access.display_port = display;
  access.web_port = store::port_of(sql, instance.insid, "web");
  if (may(who, Deed::see_secret, instance.owner))
    access.display_password = store::display_password(sql, instance.insid);
  view.access = std::move(access);
  return view;
}

Result<Page<VmView>> Cloud::vms(const Principal& who, const PageRequest& page) {
  auto after = parse_cursor(page);
  if (!after) return fail(after.error());
  const std::string owner = who.admin ? "" : who.account;
  return impl_->store.read([&](store::Sql& sql) -> Result<Page<VmView>> {
    Page<VmView> out;
    const auto rows = store::list_instances(sql, *after, page.limit, owner);
    for (const auto& row : rows) {
      if (may(who, Deed::see_vm, row.value.owner)) out.items.push_back(impl_->vm_view(sql, who, row.value));
    }
    if (static_cast<int>(rows.size()) == page.limit) out.next = std::to_string(rows.back().id);
    return out;
  });
}

Result<VmView> Cloud::vm(const Principal& who, std::string_view insid) {
  return impl_->store.read([&](store::Sql& sql) -> Result<VmView> {
    auto instance = impl_->instance(sql, who, Deed::see_vm, insid);
    if (!instance) return fail(instance.error());
    return impl_->vm_view(sql, who, *instance);
  });
}

namespace {

Task run_task(const Instance& instance, const Principal& who, bool lazy) {
  Task task;
  task.lazy = lazy;
  task.kind = TaskKind::run;
  task.owner = instance.owner.empty() ? who.account : instance.owner;
  task.src = task.dst = instance.imgid;
  task.insid = instance.insid;
  task.tid = instance.imgid + ":" + instance.imgid + ":" + instance.insid;
  return task;
}

/// With the password hashed, outside of any transaction.
Result<msg::FirstBoot> first_boot_of(const NewFirstBoot& wanted) {
  if (auto ok = check_first_boot(wanted); !ok) return fail(ok.error());
  msg::FirstBoot out;
  out.hostname = wanted.hostname;
  out.user = wanted.user;
  out.ssh_key = wanted.ssh_key;
  if (!wanted.password.empty()) {
    auto hash = guest_password_hash(wanted.password);
    if (!hash) return fail(hash.error());
    out.password_hash = std::move(*hash);
  }
  return out;
}

}  // namespace

namespace {

/// Errors: conflict, not_found naming the key.
Result<> check_image_for(store::Sql& sql, Cloud::Impl& impl, const Image& image, const NewVm& request) {
  if (auto ok = impl.check_usable(sql, image); !ok) return ok;
  const bool for_server = request.kind == "VS";
  if (for_server != (image.usage == "server")) {
    return fail(ErrorCode::conflict,
                for_server ? "image " + image.name + " is for desktops: educloud image set " + image.imgid +
                                 " --usage server makes it a server's, with a disk for data"
                           : "image " + image.name + " is for servers: educloud vm define --server",
                "kind");
  }
  return impl.check_version(sql, image, request.version, for_server);
}

Instance instance_of(const NewVm& request, InstanceId insid, const Principal& who) {
  Instance instance;
  instance.insid = insid.str();
  instance.name = request.name.empty() ? instance.insid : request.name;
  instance.owner = who.account;
  instance.imgid = request.imgid;
  instance.version = request.version;
  instance.cluster_pin = request.cluster;
  instance.node_pin = request.node;
  instance.folder_protocol = request.folder_protocol;
  instance.autostart = request.autostart.value_or(request.kind == "VS");
  return instance;
}

Result<InstanceKind> kind_asked(const NewVm& request) {
  if (request.kind == "VD") return InstanceKind::VD;
  if (request.kind == "VS") return InstanceKind::VS;
  if (request.kind != "TVD") return fail(ErrorCode::invalid_argument, "'kind' must be VD, TVD or VS", "kind");
  if (request.autostart == true) {
    return fail(ErrorCode::invalid_argument, "a temporary desktop ends with its node: it cannot start again",
                "autostart");
  }
  return InstanceKind::TVD;
}

}  // namespace

Result<VmView> Cloud::define_vm(const Principal& who, const NewVm& request) {
  auto& impl = *impl_;
  if (auto ok = check(who, Deed::create_vm, "", ""); !ok) return fail(ok.error());
  const auto kind = kind_asked(request);
  if (!kind) return fail(kind.error());
  if (auto ok = check_folder_protocol(request.folder_protocol); !ok) return fail(ok.error());
  auto first_boot = first_boot_of(request.first_boot);
  if (!first_boot) return fail(first_boot.error());
  return impl.write_placing([&](store::Sql& sql) -> Result<VmView> {
    auto image = impl.image(sql, who, Deed::see_image, request.imgid);
    if (!image) return fail(image.error());
    if (auto ok = check_image_for(sql, impl, *image, request); !ok) return fail(ok.error());
    Instance instance = instance_of(request, impl.free_instance_id(sql, *kind), who);
    if (auto ok = check_name(instance.name, "name"); !ok) return fail(ok.error());
    instance.created_at = impl.clock.wall_ms();
    instance.first_boot = *first_boot;
    if (auto ok = impl.size(sql, instance, image->usage, request.vmtype, request.memory_mib, request.cpus);
        !ok) {
      return fail(ok.error());
    }
    if (auto ok = impl.check_pins(sql, request.cluster, request.node); !ok) return fail(ok.error());
    store::add_instance(sql, instance);
    impl.audit(sql, who, "vm.define", instance.insid, image->imgid);
    if (*kind == InstanceKind::TVD) {
      auto begun = impl.engine.begin(sql, run_task(instance, who, request.lazy));
      if (!begun) return fail(begun.error());
    }
    return impl.vm_view(sql, who, instance);
  });
}

Result<TaskView> Cloud::run_vm(const Principal& who, std::string_view insid, bool lazy) {
  auto& impl = *impl_;
  return impl.write_placing([&](store::Sql& sql) -> Result<TaskView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    if (instance->deleting)
      return fail(ErrorCode::conflict, "instance " + instance->insid + " is being deleted");
    auto open = store::open_task_of_instance(sql, instance->insid);
    if (open) open->lazy = lazy;
    auto task = open ? impl.engine.user_event(sql, std::move(*open), task::Event::start)
                     : impl.engine.begin(sql, run_task(*instance, who, lazy));
    if (!task) return fail(task.error());
    impl.audit(sql, who, "vm.run", instance->insid, task->node);
    return impl.engine.view(sql, *task);
  });
}

Result<TaskView> Cloud::stop_vm(const Principal& who, std::string_view insid) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    auto open = store::open_task_of_instance(sql, instance->insid);
    if (!open) return fail(ErrorCode::conflict, "instance " + instance->insid + " does not run");
    open->leaves_at = 0;  // its user ends it, not a drain: it is not for anybody else to start it again
    auto task = impl.engine.user_event(sql, *open, task::Event::stop);
    if (!task) return fail(task.error());
    impl.audit(sql, who, "vm.stop", instance->insid);
    return impl.engine.view(sql, *task);
  });
}

Result<VmView> Cloud::delete_vm(const Principal& who, std::string_view insid, bool force) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<VmView> {
    auto instance = impl.instance(sql, who, Deed::control_vm, insid);
    if (!instance) return fail(instance.error());
    if (force) {
      if (auto ok = check(who, Deed::force_task, instance->owner, instance->insid); !ok)
        return fail(ok.error());
    }
    const auto open = store::open_task_of_instance(sql, instance->insid);
    if (instance->insid.starts_with("TMP")) {
      return fail(ErrorCode::conflict,
                  instance->insid + " edits an image: cancel task " + (open ? open->tid : "") + " instead");
    }
    impl.audit(sql, who, force ? "vm.force_delete" : "vm.delete", instance->insid, instance->name);
    VmView view = impl.vm_view(sql, who, *instance);
    view.state = "deleting";
    if (!open && instance->disk_cluster.empty()) {
      store::remove_instance(sql, instance->insid);
      view.state = "deleted";
      return view;
    }
    store::set_instance_deleting(sql, instance->insid);
    view.instance.deleting = true;
    if (!open) {
      Task run = run_task(*instance, who, false);
      run.cluster = instance->disk_cluster;
      auto remover = impl.engine.remove_disk(sql, std::move(run));
      if (!remover) return fail(remover.error());
      view.task = impl.engine.view(sql, *remover);
      return view;
    }
    if (force) {
      auto ended = impl.engine.force_end(sql, *open);
      if (!ended) return fail(ended.error());
      view.task = impl.engine.view(sql, *ended);
      view.state = "deleted";
      return view;
    }
    if (open->state.state == task::State::deleting) return view;  // asked before
    auto task = impl.engine.user_event(sql, *open, task::Event::cancel);
    if (!task) return fail(task.error());
    view.task = impl.engine.view(sql, *task);
    return view;
  });
}

Result<InstanceFile> Cloud::instance_file(const Principal& who, std::string_view insid,
                                          std::string_view what) {
  auto& impl = *impl_;
  if (what != "console" && what != "screenshot") {
    return fail(ErrorCode::invalid_argument, "only console and screenshot can be read");
  }
  return impl.store.read([&](store::Sql& sql) -> Result<InstanceFile> {
    auto instance = impl.instance(sql, who, Deed::see_secret, insid);
    if (!instance) return fail(instance.error());
    const auto task = store::open_task_of_instance(sql, instance->insid);
    if (!task || task->node.empty())
      return fail(ErrorCode::conflict, "instance " + instance->insid + " is on no node");
    const auto cc = impl.heartbeats.cluster(task->cluster);
    if (!cc || cc->age_ms > impl.options.placement.max_age_ms || cc->status.service_data.data_port == 0) {
      return fail(ErrorCode::unavailable,
                  "cluster controller " + task->cluster + " is silent: check educloud-cc there");
    }
    const std::string path = "/instances/" + instance->insid + "/" + std::string(what);
    const transfer::Grant grant{"GET", path, task->node, impl.clock.wall_ms() / 1000 + 60};
    InstanceFile file;
    file.base_url =
        "http://" + cc->status.net_data.ip0 + ":" + std::to_string(cc->status.service_data.data_port);
    file.target = "/nodes/" + task->node + path + "?" +
                  transfer::sign_grant(transfer::derive_node_key(impl.options.data_key, task->node), grant);
    return file;
  });
}

}  // namespace educloud::clc
