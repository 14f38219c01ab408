#include "clc/app/cloud.hpp"

#include <charconv>

#include "clc/app/cloud_impl.hpp"
#include "clc/store/dead_letters.hpp"

namespace educloud::clc {

Cloud::Cloud(store::Store& store, Heartbeats& heartbeats, EventHub& events, const Clock& clock,
             CloudOptions options)
    : impl_(std::make_unique<Impl>(store, heartbeats, events, clock, std::move(options))) {}
Cloud::~Cloud() = default;

void Cloud::on_outbox(std::function<void()> wake) {
  impl_->engine.on_outbox(std::move(wake));
}
void Cloud::broker_state(std::function<bool()> is_ready) {
  impl_->is_ready = std::move(is_ready);
}
std::uint64_t Cloud::changes() const {
  return impl_->store.commits();
}

EventHub& Cloud::events() {
  return impl_->events;
}
Safety& Cloud::safety() {
  return impl_->safety;
}
const CloudOptions& Cloud::options() const {
  return impl_->options;
}

Result<std::int64_t> parse_cursor(const PageRequest& page) {
  if (page.limit < 1 || page.limit > 500)
    return fail(ErrorCode::invalid_argument, "'limit' must be 1 to 500", "limit");
  std::int64_t value = 0;
  if (page.cursor.empty()) return value;
  const auto* end = page.cursor.data() + page.cursor.size();
  const auto [at, error] = std::from_chars(page.cursor.data(), end, value);
  if (error != std::errc() || at != end || value < 1) {
    return fail(ErrorCode::invalid_argument, "'cursor' is not one this list gave out", "cursor");
  }
  return value;
}

Result<> check_name(std::string_view name, std::string_view key) {
  bool ok = !name.empty() && name.size() <= 60 && name.front() != ' ' && name.back() != ' ';
  for (const char c : name) ok = ok && static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '/';
  if (ok) return {};
  return fail(ErrorCode::invalid_argument,
              "'" + std::string(key) +
                  "' must be 1 to 60 characters, no control characters, no '/', no blank at the ends",
              std::string(key));
}

Result<> check_description(std::string_view text) {
  bool ok = text.size() <= 1000;
  for (const char c : text) ok = ok && (static_cast<unsigned char>(c) >= 0x20 || c == '\n');
  if (ok) return {};
  return fail(ErrorCode::invalid_argument,
              "'description' must be at most 1000 characters, no control characters", "description");
}

Result<Image> Cloud::Impl::image(store::Sql& sql, const Principal& who, Deed deed, std::string_view imgid) {
  if (auto id = ImageId::parse(imgid); !id) return fail(id.error());
  auto image = store::find_image(sql, imgid);
  if (!image) return fail(ErrorCode::not_found, "there is no image " + std::string(imgid));
  if (auto ok = check(who, deed, image->owner, "image " + image->name); !ok) return fail(ok.error());
  const bool reads = deed == Deed::see_image || deed == Deed::export_image;
  if (image->usage == "database" && !reads) {
    const auto server = store::find_image_of_database(sql, imgid);
    return fail(ErrorCode::conflict, "image " + image->imgid + " is the database disk of " +
                                         (server ? "image " + server->imgid : "an image that is gone") +
                                         " and changes with that");
  }
  return *image;
}

Result<> Cloud::Impl::check_usable(store::Sql& sql, const Image& image) {
  if (image.deleting) return fail(ErrorCode::conflict, "image " + image.name + " is being deleted");
  if (image.usage == "database")
    return fail(ErrorCode::conflict, "image " + image.imgid + " is a database disk, no system to start");
  const auto disk = store::find_image(sql, image.database_imgid);
  if (!disk || disk->current_version > 0 || image.current_version == 0) return {};
  std::string by = "its task has failed: educloud task list";
  for (const auto& task : store::open_tasks_of_image(sql, disk->imgid)) by = "by task " + task.tid;
  return fail(ErrorCode::conflict,
              "the disk for the data of image " + image.name + " is being made: wait (" + by + ")");
}

Result<Instance> Cloud::Impl::instance(store::Sql& sql, const Principal& who, Deed deed,
                                       std::string_view insid) {
  if (auto id = InstanceId::parse(insid); !id) return fail(id.error());
  auto instance = store::find_instance(sql, insid);
  if (!instance) return fail(ErrorCode::not_found, "there is no instance " + std::string(insid));
  if (auto ok = check(who, deed, instance->owner, "instance " + instance->insid); !ok)
    return fail(ok.error());
  return *instance;
}

Result<Task> Cloud::Impl::task(store::Sql& sql, const Principal& who, Deed deed, std::string_view tid) {
  if (auto id = TaskId::parse(tid); !id) return fail(id.error());
  auto task = store::find_task(sql, tid);
  if (!task) return fail(ErrorCode::not_found, "there is no task " + std::string(tid));
  if (auto ok = check(who, deed, task->owner, "task " + task->tid); !ok) return fail(ok.error());
  return *task;
}

Result<StatusView> Cloud::status(const Principal& who) {
  if (auto ok = check(who, Deed::see_status, "", ""); !ok) return fail(ok.error());
  auto& impl = *impl_;
  return impl.store.read([&](store::Sql& sql) -> Result<StatusView> {
    StatusView view;
    view.version = impl.options.version;
    view.started_at = impl.started_at;
    view.broker_ready = impl.is_ready();
    view.walrus_url = impl.options.walrus_url;
    view.images = static_cast<int>(sql.number("SELECT COUNT(*) FROM images WHERE usage <> 'database'"));
    view.instances =
        static_cast<int>(sql.number("SELECT COUNT(*) FROM instances WHERE insid NOT LIKE 'TMP%'"));
    view.open_tasks = static_cast<int>(sql.number("SELECT COUNT(*) FROM tasks WHERE state <> 'gone'"));
    view.failed_tasks =
        static_cast<int>(sql.number("SELECT COUNT(*) FROM tasks WHERE state <> 'gone' AND failed = 1"));
    view.running_vms = static_cast<int>(sql.number("SELECT COUNT(*) FROM tasks WHERE state = 'running'"));
    view.outbox = store::outbox_size(sql);
    view.dead_letters = store::count_dead_letters(sql);
    view.backup_at = impl.safety.last_backup_at();
    view.clusters = impl.cluster_views(sql);
    for (const auto& one : view.clusters) {
      view.nodes += one.nodes;
      view.nodes_alive += one.nodes_alive;
    }
    return view;
  });
}

}  // namespace educloud::clc
