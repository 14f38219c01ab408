#pragma once

// For the .cpp files of class Cloud only.

#include <atomic>

#include "clc/app/cloud.hpp"
#include "clc/app/engine.hpp"
#include "clc/app/safety.hpp"
#include "clc/domain/rights.hpp"
#include "clc/store/accounts.hpp"
#include "clc/store/placements.hpp"
#include "clc/store/store.hpp"

namespace educloud::clc {

struct Cloud::Impl {
  Impl(store::Store& s, Heartbeats& h, EventHub& e, const Clock& c, CloudOptions o)
      : store(s),
        heartbeats(h),
        events(e),
        clock(c),
        options(std::move(o)),
        engine(h, e, c, options),
        safety(s, engine, c, options.backup),
        started_at(c.wall_ms()) {}

  store::Store& store;
  Heartbeats& heartbeats;
  EventHub& events;
  const Clock& clock;
  const CloudOptions options;
  Engine engine;
  Safety safety;
  std::int64_t started_at;
  std::function<bool()> is_ready = [] { return false; };

  void audit(store::Sql& sql, const Principal& who, std::string_view action, std::string_view object,
             std::string_view detail = {}) {
    store::audit(sql, clock.wall_ms(), who.account, action, object, detail);
  }

  /// store.write for what may choose a node: a refusal, whose transaction is rolled back, is kept all the
  /// same.
  template <class F>
  std::invoke_result_t<F&, store::Sql&> write_placing(F fn) {
    std::optional<Decision> refused;
    auto out = store.write([&](store::Sql& sql) {
      auto done = fn(sql);
      refused = engine.take_refused();
      return done;
    });
    if (!out && refused) keep_refused(*refused);
    return out;
  }
  void keep_refused(const Decision& refused);

  Result<Image> image(store::Sql& sql, const Principal& who, Deed deed, std::string_view imgid);
  Result<Instance> instance(store::Sql& sql, const Principal& who, Deed deed, std::string_view insid);
  Result<Task> task(store::Sql& sql, const Principal& who, Deed deed, std::string_view tid);
  /// `version`, or with 0 the one in use. Errors: not_found, conflict (none yet, or it is going).
  Result<Version> version_of(store::Sql& sql, const Image& image, int version);
  /// What stands against making a VM of `image`. Errors: conflict (it is being deleted, or its disk for data
  /// is being made).
  Result<> check_usable(store::Sql& sql, const Image& image);
  ImageView image_view(store::Sql& sql, const Image& image);
  VmView vm_view(store::Sql& sql, const Principal& who, const Instance& instance);
  /// Fills an instance's vmtype, memory and cpus. Errors: invalid_argument naming the key.
  Result<> size(store::Sql& sql, Instance& instance, std::string_view usage, const std::string& vmtype,
                std::int64_t memory_mib, int cpus);
  /// Errors: not_found, conflict (the node is in another cluster).
  Result<> check_pins(store::Sql& sql, const std::string& cluster, const std::string& node);
  /// Whether a VM may be of this version, 0: of the one in use. Errors: not_found naming the key, conflict
  /// (no version yet, or one without a disk for a server's data).
  Result<> check_version(store::Sql& sql, const Image& image, int version, bool for_server);
  /// An instance id nobody has (32 random bits do collide some day).
  InstanceId free_instance_id(store::Sql& sql, InstanceKind kind);
  std::vector<ClusterView> cluster_views(store::Sql& sql);
  UploadTarget upload_target(const Task& task, const std::string& format);
};

/// The row number in a cursor; 0 for none. Errors: invalid_argument.
Result<std::int64_t> parse_cursor(const PageRequest& page);
/// A name people give: 1 to 60 characters of UTF-8, no control characters, no blank at either end.
Result<> check_name(std::string_view name, std::string_view key);
Result<> check_description(std::string_view text);

}  // namespace educloud::clc
