#include "clc/app/cloud_impl.hpp"

namespace educloud::clc {
namespace {

/// Instances that need a version of `image`, by version number.
std::multimap<int, std::string> users_of_versions(store::Sql& sql, const Image& image) {
  std::multimap<int, std::string> out;
  std::map<std::string, int> seen;
  for (const auto& task : store::open_tasks_of_image(sql, image.imgid)) {
    if (task.src != image.imgid || !needs_source(task)) continue;
    out.emplace(task.source_version, task.insid);
    seen[task.insid] = task.source_version;
  }
  for (const auto& instance : store::instances_of_image(sql, image.imgid)) {
    // What runs may be of another version than its next start.
    const auto at = seen.find(instance.insid);
    if (instance.version != 0 && (at == seen.end() || at->second != instance.version))
      out.emplace(instance.version, instance.insid);
  }
  return out;
}

Result<> check_no_upkeep(store::Sql& sql, const Image& image) {
  if (image.deleting) return fail(ErrorCode::conflict, "image " + image.name + " is being deleted");
  for (const auto& task : store::open_tasks_of_image(sql, image.imgid)) {
    if (!is_maintenance(task.kind)) continue;
    return fail(ErrorCode::conflict,
                "image " + image.name + " is under upkeep by task " + task.tid +
                    (task.failed ? ", which failed: submit it again or cancel it" : ": wait for it"));
  }
  return {};
}

Task upkeep(store::Sql& sql, Cloud::Impl& impl, TaskKind kind, const Principal& who,
            const std::string& imgid) {
  Task task;
  task.kind = kind;
  task.owner = who.account;
  task.src = task.dst = imgid;
  task.insid = impl.free_instance_id(sql, InstanceKind::TMP).str();
  task.tid = imgid + ":" + imgid + ":" + task.insid;
  task.state = {task::Phase::submitting, task::State::init};
  return task;
}

/// Which versions `request` means. Errors: conflict, not_found, invalid_argument.
Result<std::vector<int>> versions_to_prune(store::Sql& sql, const Image& image, const PruneRequest& request) {
  const auto users = users_of_versions(sql, image);
  const auto all = store::list_versions(sql, image.imgid);
  std::vector<int> out;
  if (!request.versions.empty()) {
    for (const int wanted : request.versions) {
      const auto at =
          std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.version == wanted; });
      const std::string name = image.name + " version " + std::to_string(wanted);
      if (at == all.end()) return fail(ErrorCode::not_found, "there is no " + name, "versions");
      if (wanted == image.current_version) {
        return fail(ErrorCode::conflict, name + " is the one in use: roll back or publish another first",
                    "versions");
      }
      if (const auto user = users.find(wanted); user != users.end()) {
        return fail(ErrorCode::conflict,
                    name + " is needed by " + (user->second.starts_with("TMP") ? "the task of " : "") +
                        "instance " + user->second + ": end that first",
                    "versions");
      }
      if (std::find(out.begin(), out.end(), wanted) == out.end()) out.push_back(wanted);
    }
    return out;
  }
  if (request.keep < 1)
    return fail(ErrorCode::invalid_argument, "name 'versions', or 'keep' of at least 1", "keep");
  const auto spare = static_cast<std::ptrdiff_t>(all.size()) - request.keep;
  for (std::ptrdiff_t i = 0; i < spare; ++i) {
    const int version = all[static_cast<std::size_t>(i)].version;
    if (version != image.current_version && !users.contains(version)) out.push_back(version);
  }
  if (out.empty()) return fail(ErrorCode::conflict, "image " + image.name + " has no version that could go");
  return out;
}

}  // namespace

Result<Page<VersionView>> Cloud::versions(const Principal& who, std::string_view imgid) {
  return impl_->store.read([&](store::Sql& sql) -> Result<Page<VersionView>> {
    auto image = impl_->image(sql, who, Deed::see_image, imgid);
    if (!image) return fail(image.error());
    const auto users = users_of_versions(sql, *image);
    Page<VersionView> out;
    for (auto& version : store::list_versions(sql, image->imgid)) {
      VersionView view{version, version.version == image->current_version, {}};
      const auto [first, last] = users.equal_range(version.version);
      for (auto at = first; at != last; ++at) view.used_by.push_back(at->second);
      out.items.push_back(std::move(view));
    }
    return out;
  });
}

Result<TaskView> Cloud::rollback_image(const Principal& who, std::string_view imgid, int version) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto image = impl.image(sql, who, Deed::change_image, imgid);
    if (!image) return fail(image.error());
    if (auto ok = check_no_upkeep(sql, *image); !ok) return fail(ok.error());
    if (!store::find_version(sql, image->imgid, version)) {
      return fail(ErrorCode::not_found, "image " + image->name + " has no version " + std::to_string(version),
                  "version");
    }
    if (version == image->current_version) {
      return fail(ErrorCode::conflict, "version " + std::to_string(version) + " is the one in use already",
                  "version");
    }
    Task task = upkeep(sql, impl, TaskKind::use, who, image->imgid);
    task.target_version = version;
    auto begun = impl.engine.begin(sql, std::move(task));
    if (!begun) return fail(begun.error());
    impl.audit(sql, who, "image.rollback", image->imgid, "to version " + std::to_string(version));
    return impl.engine.view(sql, *begun);
  });
}

Result<TaskView> Cloud::prune_image(const Principal& who, std::string_view imgid,
                                    const PruneRequest& request) {
  auto& impl = *impl_;
  if (request.versions.size() > limits::kListEntries) {
    return fail(ErrorCode::invalid_argument, "'versions' names too many", "versions");
  }
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto image = impl.image(sql, who, Deed::change_image, imgid);
    if (!image) return fail(image.error());
    if (auto ok = check_no_upkeep(sql, *image); !ok) return fail(ok.error());
    auto chosen = versions_to_prune(sql, *image, request);
    if (!chosen) return fail(chosen.error());
    std::string list;
    for (const int version : *chosen) {
      store::set_pruning(sql, image->imgid, version, true);
      list += (list.empty() ? "" : ",") + std::to_string(version);
    }
    auto begun = impl.engine.begin(sql, upkeep(sql, impl, TaskKind::prune, who, image->imgid), *chosen);
    if (!begun) return fail(begun.error());
    impl.audit(sql, who, "image.prune", image->imgid, "versions " + list);
    return impl.engine.view(sql, *begun);
  });
}

Result<TaskView> Cloud::delete_image(const Principal& who, std::string_view imgid) {
  auto& impl = *impl_;
  return impl.store.write([&](store::Sql& sql) -> Result<TaskView> {
    auto image = impl.image(sql, who, Deed::change_image, imgid);
    if (!image) return fail(image.error());
    if (auto ok = check_no_upkeep(sql, *image); !ok) return fail(ok.error());
    if (auto open = store::open_tasks_of_image(sql, image->imgid); !open.empty()) {
      // An import that failed, or whose file never came, is all there is of this image: end it.
      if (open.front().kind == TaskKind::import && image->current_version == 0) {
        auto ended = impl.engine.user_event(sql, std::move(open.front()), task::Event::cancel);
        if (!ended) return fail(ended.error());
        impl.audit(sql, who, "image.delete", image->imgid, image->name);
        return impl.engine.view(sql, *ended);
      }
      return fail(ErrorCode::conflict,
                  "image " + image->name + " is used by task " + open.front().tid + ": end that first");
    }
    if (const auto making = store::open_tasks_of_image(sql, image->database_imgid); !making.empty()) {
      return fail(ErrorCode::conflict, "the database disk of image " + image->name + " is changed by task " +
                                           making.front().tid + ": wait for it, or cancel it");
    }
    if (const auto users = store::instances_of_image(sql, image->imgid); !users.empty()) {
      return fail(ErrorCode::conflict, "image " + image->name + " is used by instance " +
                                           users.front().insid + " (" + users.front().name +
                                           "): delete that first");
    }
    image->deleting = true;
    store::update_image(sql, *image);
    auto begun = impl.engine.begin(sql, upkeep(sql, impl, TaskKind::remove, who, image->imgid));
    if (!begun) return fail(begun.error());
    impl.audit(sql, who, "image.delete", image->imgid, image->name);
    return impl.engine.view(sql, *begun);
  });
}

}  // namespace educloud::clc
