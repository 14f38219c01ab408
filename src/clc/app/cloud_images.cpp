#include "clc/app/cloud_impl.hpp"
#include "common/transfer/grant.hpp"

namespace educloud::clc {
namespace {

constexpr std::int64_t kUploadGrantSeconds = 24 * 3600;

Result<> check_format(std::string_view format) {
  for (const std::string_view one : {"", "qcow2", "raw", "vdi", "vmdk", "vhdx"}) {
    if (format == one) return {};
  }
  return fail(ErrorCode::invalid_argument, "'format' must be qcow2, raw, vdi, vmdk or vhdx", "format");
}

/// By the file's name, when the user did not say.
std::string format_of(const NewImage& request) {
  if (!request.format.empty()) return request.format;
  const auto dot = request.filename.rfind('.');
  const std::string ending = dot == std::string::npos ? "" : request.filename.substr(dot + 1);
  for (const std::string_view one : {"qcow2", "raw", "vdi", "vmdk", "vhdx"}) {
    if (ending == one) return ending;
  }
  return ending == "img" ? "raw" : "";
}

ImageId free_image_id(store::Sql& sql) {
  auto id = new_image_id();
  while (store::find_image(sql, id.str())) id = new_image_id();
  return id;
}

Result<> check_new_image(store::Sql& sql, const std::string& name, const std::string& description) {
  if (auto ok = check_name(name, "name"); !ok) return ok;
  if (auto ok = check_description(description); !ok) return ok;
  if (store::find_image_named(sql, name)) {
    return fail(ErrorCode::conflict, "there is an image named '" + name + "' already", "name");
  }
  return {};
}

Task new_task(TaskKind kind, const Principal& who, const std::string& src, const std::string& dst,
              const std::string& insid) {
  Task task;
  task.kind = kind;
  task.owner = who.account;
  task.src = src;
  task.dst = dst;
  task.insid = insid;
  task.tid = src + ":" + dst + ":" + insid;
  if (is_walrus_task(kind)) task.state = {task::Phase::submitting, task::State::init};
  return task;
}

}  // namespace

InstanceId Cloud::Impl::free_instance_id(store::Sql& sql, InstanceKind kind) {
  auto id = new_instance_id(kind);
  while (store::find_instance(sql, id.str()) || store::open_task_of_instance(sql, id.str()))
    id = new_instance_id(kind);
  return id;
}

ImageView Cloud::Impl::image_view(store::Sql& sql, const Image& image) {
  ImageView view{image, "ready", "", "", 0, 0};
  if (image.current_version == 0) view.state = "failed";  // unless a task below is making it
  for (const auto& task : store::open_tasks_of_image(sql, image.imgid)) {
    if (task.dst != image.imgid || task.kind == TaskKind::run || task.kind == TaskKind::push) continue;
    view.tid = task.tid;
    if (image.current_version == 0 && !task.failed) {
      view.state = task.kind == TaskKind::import ? "importing" : "building";
    }
  }
  if (const auto disk = store::find_image(sql, image.database_imgid)) {
    view.database_state = disk->current_version > 0 ? "ready" : "making";
    for (const auto& task : store::open_tasks_of_image(sql, disk->imgid)) {
      if (view.tid.empty()) view.tid = task.tid;
    }
  }
  if (image.deleting) view.state = "deleting";
  if (const auto version = store::find_version(sql, image.imgid, image.current_version)) {
    view.size_bytes = version->size_bytes;
    view.virtual_size_bytes = version->virtual_size_bytes;
  }
  return view;
}

Result<Page<ImageView>> Cloud::images(const Principal& who, const PageRequest& page) {
  if (auto ok = check(who, Deed::see_image, "", "images"); !ok) return fail(ok.error());
  auto after = parse_cursor(page);
  if (!after) return fail(after.error());
  return impl_->store.read([&](store::Sql& sql) -> Result<Page<ImageView>> {
    Page<ImageView> out;
    const auto rows = store::list_images(sql, *after, page.limit);
    for (const auto& row : rows) out.items.push_back(impl_->image_view(sql, row.value));
    if (static_cast<int>(rows.size()) == page.limit) out.next = std::to_string(rows.back().id);
    return out;
  });
}

Result<ImageView> Cloud::image(const Principal& who, std::string_view imgid) {
  return impl_->store.read([&](store::Sql& sql) -> Result<ImageView> {
    auto image = impl_->image(sql, who, Deed::see_image, imgid);
    if (!image) return fail(image.error());
    return impl_->image_view(sql, *image);
  });
}

UploadTarget Cloud::Impl::upload_target(const Task& task, const std::string& format) {
  // As its uploads come from a person, not from a node, this grant is signed with the cloud's own key.
  const transfer::Grant grant{"PUT", transfer::version_path(task.dst, task.target_version),
                              std::string(transfer::kUserNode), clock.wall_ms() / 1000 + kUploadGrantSeconds};
  UploadTarget target;
  target.url = options.walrus_url + "/uploads";
  target.query = "image=" + task.dst + "&version=" + std::to_string(task.target_version) + "&" +
                 transfer::sign_grant(options.data_key, grant);
  target.cmdid = task.cmdid;
  target.format = format;
  return target;
}

Result<ImageCreated> Cloud::create_image(const Principal& who, const NewImage& request) {
  auto& impl = *impl_;
  if (auto ok = check(who, Deed::create_image, "", ""); !ok) return fail(ok.error());
  if (auto ok = check_format(request.format); !ok) return fail(ok.error());
  if (request.usage != "desktop" && request.usage != "server") {
    return fail(ErrorCode::invalid_argument, "'usage' must be desktop or server", "usage");
  }
  if (request.database_gib != 0 && request.usage != "server")
    return fail(ErrorCode::invalid_argument, "'database_gib' goes with usage server", "database_gib");
  if (request.database_gib < 0 || request.database_gib > kMostDatabaseGib) {
    return fail(ErrorCode::invalid_argument,
                "'database_gib' must be 1 to " + std::to_string(kMostDatabaseGib), "database_gib");
  }
  if (request.size_bytes < 0 || request.size_bytes > static_cast<std::int64_t>(limits::kImageBytes)) {
    return fail(ErrorCode::too_large, "'size_bytes' must be at most " + std::to_string(limits::kImageBytes),
                "size_bytes");
  }
  if (request.filename.size() > 255)
    return fail(ErrorCode::invalid_argument, "'filename' is too long", "filename");
  return impl.store.write([&](store::Sql& sql) -> Result<ImageCreated> {
    if (auto ok = check_new_image(sql, request.name, request.description); !ok) return fail(ok.error());
    if (!store::find_ostype(sql, request.ostype)) {
      std::string known;
      for (const auto& one : store::list_ostypes(sql)) known += (known.empty() ? "" : ", ") + one.name;
      return fail(ErrorCode::invalid_argument, "'ostype' must be one of " + known, "ostype");
    }
    Image image;
    image.imgid = free_image_id(sql).str();
    image.name = request.name;
    image.owner = who.account;
    image.ostype = request.ostype;
    image.usage = request.usage;
    if (image.usage == "server")
      image.database_gib = request.database_gib == 0 ? kDatabaseGib : request.database_gib;
    image.description = request.description;
    image.created_at = impl.clock.wall_ms();
    store::add_image(sql, image);
    const auto insid = impl.free_instance_id(sql, InstanceKind::TMP).str();
    auto task = impl.engine.begin(sql, new_task(TaskKind::import, who, image.imgid, image.imgid, insid));
    if (!task) return fail(task.error());
    impl.audit(sql, who, "image.create", image.imgid, image.name);
    return ImageCreated{image.imgid, task->tid, impl.upload_target(*task, format_of(request))};
  });
}

namespace {

Result<> change_texts(store::Sql& sql, Image& image, const ImageChange& change) {
  if (change.name && *change.name != image.name) {
    if (auto ok = check_new_image(sql, *change.name, change.description.value_or("")); !ok) return ok;
    image.name = *change.name;
  }
  if (change.description) {
    if (auto ok = check_description(*change.description); !ok) return ok;
    image.description = *change.description;
  }
  return {};
}

Result<> check_usage_change(store::Sql& sql, const Image& image, const std::string& usage) {
  if (usage != "desktop" && usage != "server")
    return fail(ErrorCode::invalid_argument, "'usage' must be desktop or server", "usage");
  if (image.current_version == 0)
    return fail(ErrorCode::conflict, "image " + image.name + " has no version yet: its import has not ended");
  constexpr std::size_t kNamed = 50;
  std::vector<std::string> in_the_way;
  for (const auto& instance : store::instances_of_image(sql, image.imgid)) {
    if (usage == "server" || instance.insid.starts_with("VS") || instance.insid.starts_with("TMP"))
      in_the_way.push_back(instance.insid);
  }
  if (in_the_way.empty()) return {};
  std::string names;
  for (std::size_t i = 0; i < std::min(in_the_way.size(), kNamed); ++i)
    names += (i == 0 ? "" : ", ") + in_the_way[i];
  if (in_the_way.size() > kNamed) names += " and " + std::to_string(in_the_way.size() - kNamed) + " more";
  return fail(ErrorCode::conflict, "image " + image.name + " is used as a " + image.usage + "'s by " +
                                       std::to_string(in_the_way.size()) +
                                       (in_the_way.size() == 1 ? " instance: " : " instances: ") + names +
                                       ". Delete those first");
}

/// True if a disk for data has to be made before `image` is a server's.
Result<bool> change_usage(store::Sql& sql, Image& image, const ImageChange& change) {
  const auto disk = store::find_image(sql, image.database_imgid);
  const bool needs_disk = change.usage == "server" && !disk;
  if (change.database_gib != 0 && !needs_disk) {
    return fail(ErrorCode::invalid_argument,
                disk ? "'database_gib' is for a new disk, and image " + image.name + " has one"
                     : "'database_gib' goes with usage server",
                "database_gib");
  }
  if (!change.usage || (change.usage == image.usage && !needs_disk)) return false;
  if (auto ok = check_usage_change(sql, image, *change.usage); !ok) return fail(ok.error());
  if (disk && disk->current_version == 0)
    return fail(ErrorCode::conflict, "the disk for the data of image " + image.name + " is being made");
  if (needs_disk) {
    image.database_gib = change.database_gib;
    return true;
  }
  image.usage = *change.usage;
  if (disk && image.usage == "server") store::give_database(sql, image.imgid, disk->current_version);
  return false;
}

}  // namespace

Result<ImageView> Cloud::change_image(const Principal& who, std::string_view imgid,
                                      const ImageChange& change) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<ImageView> {
    auto image = impl.image(sql, who, Deed::change_image, imgid);
    if (!image) return fail(image.error());
    if (image->deleting) return fail(ErrorCode::conflict, "image " + image->name + " is being deleted");
    if (auto ok = change_texts(sql, *image, change); !ok) return fail(ok.error());
    auto needs_disk = change_usage(sql, *image, change);
    if (!needs_disk) return fail(needs_disk.error());
    store::update_image(sql, *image);
    impl.audit(sql, who, "image.change", image->imgid, change.usage.value_or(""));
    if (*needs_disk) {
      auto task = impl.engine.begin_database(sql, *image, who.account);
      if (!task) return fail(task.error());
      image->database_imgid = task->dst;
    }
    auto view = impl.image_view(sql, *image);
    return view;
  });
}

Result<UploadTarget> Cloud::upload_target(const Principal& who, std::string_view tid) {
  return impl_->store.read([&](store::Sql& sql) -> Result<UploadTarget> {
    auto task = impl_->task(sql, who, Deed::control_task, tid);
    if (!task) return fail(task.error());
    const bool waits = task->kind == TaskKind::import && task->op_open && !task->achieved &&
                       task->state.phase == task::Phase::submitting;
    if (!waits) {
      return fail(ErrorCode::conflict, "task " + task->tid + " waits for no upload" +
                                           (task->failed ? ": it has failed, submit it again first" : ""));
    }
    return impl_->upload_target(*task, "");
  });
}

namespace {

Instance editor(const InstanceId& insid, const Image& image, const Principal& who, const EditRequest& request,
                std::string name, std::int64_t now_ms) {
  Instance instance;
  instance.insid = insid.str();
  instance.name = std::move(name);
  instance.owner = who.account;
  instance.imgid = image.imgid;
  instance.version = request.version;
  instance.cluster_pin = request.cluster;
  instance.node_pin = request.node;
  instance.created_at = now_ms;
  return instance;
}

}  // namespace

Result<TaskView> Cloud::modify_image(const Principal& who, std::string_view imgid,
                                     const EditRequest& request) {
  auto& impl = *impl_;
  return impl.write_placing([&](store::Sql& sql) -> Result<TaskView> {
    auto image = impl.image(sql, who, Deed::change_image, imgid);
    if (!image) return fail(image.error());
    if (auto ok = impl.check_usable(sql, *image); !ok) return fail(ok.error());
    for (const auto& task : store::open_tasks_of_image(sql, image->imgid)) {
      const bool makes_it =
          task.dst == image->imgid && (task.kind == TaskKind::import || task.kind == TaskKind::build);
      if (makes_it) {
        return fail(ErrorCode::conflict, "image " + image->name + " is being made by task " + task.tid +
                                             ": wait for it or cancel it first");
      }
    }
    auto instance = editor(impl.free_instance_id(sql, InstanceKind::TMP), *image, who, request,
                           "modify " + image->name, impl.clock.wall_ms());
    if (auto ok = impl.size(sql, instance, image->usage, request.vmtype, request.memory_mib, request.cpus);
        !ok) {
      return fail(ok.error());
    }
    if (auto ok = impl.check_pins(sql, request.cluster, request.node); !ok) return fail(ok.error());
    store::add_instance(sql, instance);
    auto task =
        impl.engine.begin(sql, new_task(TaskKind::modify, who, image->imgid, image->imgid, instance.insid));
    if (!task) return fail(task.error());
    impl.audit(sql, who, "image.modify", image->imgid, task->tid);
    return impl.engine.view(sql, *task);
  });
}

Result<TaskView> Cloud::build_image(const Principal& who, std::string_view imgid,
                                    const EditRequest& request) {
  auto& impl = *impl_;
  return impl.write_placing([&](store::Sql& sql) -> Result<TaskView> {
    auto source = impl.image(sql, who, Deed::copy_image, imgid);
    if (!source) return fail(source.error());
    if (auto ok = impl.check_usable(sql, *source); !ok) return fail(ok.error());
    if (auto ok = check_new_image(sql, request.name, request.description); !ok) return fail(ok.error());
    Image made = *source;
    made.imgid = free_image_id(sql).str();
    made.name = request.name;
    made.owner = who.account;
    if (!request.description.empty()) made.description = request.description;
    made.current_version = 0;
    made.next_version = 1;
    made.database_imgid.clear();
    made.created_at = impl.clock.wall_ms();
    auto instance = editor(impl.free_instance_id(sql, InstanceKind::TMP), *source, who, request,
                           "build " + made.name, impl.clock.wall_ms());
    if (auto ok = impl.size(sql, instance, source->usage, request.vmtype, request.memory_mib, request.cpus);
        !ok) {
      return fail(ok.error());
    }
    if (auto ok = impl.check_pins(sql, request.cluster, request.node); !ok) return fail(ok.error());
    if (made.usage == "server") made.database_imgid = impl.engine.add_database_image(sql, made).imgid;
    store::add_image(sql, made);
    store::add_instance(sql, instance);
    auto task =
        impl.engine.begin(sql, new_task(TaskKind::build, who, source->imgid, made.imgid, instance.insid));
    if (!task) return fail(task.error());
    impl.audit(sql, who, "image.build", made.imgid, task->tid);
    return impl.engine.view(sql, *task);
  });
}

}  // namespace educloud::clc
