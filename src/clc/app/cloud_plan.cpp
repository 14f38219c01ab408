#include "clc/app/cloud_impl.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc {

namespace {

constexpr std::int64_t kMostAheadMs = 400LL * 24 * 3'600'000;

/// Errors: invalid_argument naming the key.
Result<> check_plan(const PlanRequest& request, std::int64_t now_ms) {
  if (request.count < 1 || request.count > kMostSeats) {
    return fail(ErrorCode::invalid_argument, "'count' must be 1 to " + std::to_string(kMostSeats), "count");
  }
  // A minute, for clocks that differ.
  if (request.at != 0 && (request.at < now_ms - 60'000 || request.at > now_ms + kMostAheadMs)) {
    return fail(ErrorCode::invalid_argument, "'at' must be unix milliseconds from now to 400 days ahead",
                "at");
  }
  return {};
}

std::vector<std::string> notes_of(const PlanView& view, const BootGate& gate) {
  std::vector<std::string> out;
  if (view.at != 0) {
    out.push_back(
        "for a time to come: how busy the nodes' cpus are at this moment was not counted; every VM that "
        "runs now was counted as if it still ran then");
  }
  const auto& e = view.estimate;
  if (e.fetch_s > 0) {
    out.push_back(
        "fetching at " + std::to_string(e.fetch_bytes_per_s / 1'000'000) + " MB/s, " +
        (e.fetch_measured ? "as measured lately" : "an assumed 1 Gbit/s: nothing was measured yet"));
  }
  if (e.waves > 0) {
    out.push_back(std::string("a boot ") + (e.boot_measured ? "as measured lately" : "of an assumed 30 s") +
                  ", at most " + std::to_string(gate.max_parallel) +
                  " at once on a node: " + std::to_string(e.waves) + (e.waves == 1 ? " wave" : " waves"));
  }
  return out;
}

}  // namespace

void Cloud::Impl::keep_refused(const Decision& refused) {
  const auto kept = store.write([&](store::Sql& sql) -> Result<> {
    store::put_placement(sql, refused);
    return {};
  });
  if (!kept) obs::warn("placement.not_kept", {{"tid", refused.tid}, {"error", kept.error().message}});
}

Result<PlanView> Cloud::plan(const Principal& who, const PlanRequest& request) {
  auto& impl = *impl_;
  if (auto ok = check(who, Deed::plan, "", ""); !ok) return fail(ok.error());
  if (auto ok = check_plan(request, impl.clock.wall_ms()); !ok) return fail(ok.error());
  return impl.store.read([&](store::Sql& sql) -> Result<PlanView> {
    auto image = impl.image(sql, who, Deed::see_image, request.imgid);
    if (!image) return fail(image.error());
    auto version = impl.version_of(sql, *image, request.version);
    if (!version) return fail(version.error());
    if (auto ok = impl.check_pins(sql, request.cluster, request.node); !ok) return fail(ok.error());
    Instance instance;
    if (auto ok = impl.size(sql, instance, image->usage, request.vmtype, request.memory_mib, request.cpus);
        !ok) {
      return fail(ok.error());
    }
    PlanView view;
    view.imgid = image->imgid;
    view.image_name = image->name;
    view.version = version->version;
    view.count = request.count;
    view.at = request.at;
    view.request = {
        "", instance.memory_mib, instance.cpus, version->size_bytes >> 20, request.cluster, request.node, ""};
    auto limits = image->usage == "server" ? server_limits(impl.options.placement) : impl.options.placement;
    if (request.at != 0) limits.max_cpu_usage = 100;
    view.policy = limits.policy;
    const auto nodes =
        impl.heartbeats.snapshots(store::list_nodes(sql), image->imgid, version->version, limits.max_age_ms);
    view.seating =
        place_many(facts_of(nodes, store::reservations(sql), ""), view.request, limits, request.count);
    view.bottleneck = bottleneck_of(view.seating, view.request, limits);
    view.estimate = estimate_of(view.seating, version->size_bytes, impl.options.gate, impl.engine.pace());
    view.notes = notes_of(view, impl.options.gate);
    return view;
  });
}

Result<WhyView> Cloud::why(const Principal& who, std::string_view id) {
  const bool is_instance = id.find(':') == std::string_view::npos;
  if (is_instance) {
    if (auto parsed = InstanceId::parse(id); !parsed) return fail(parsed.error());
  } else if (auto parsed = TaskId::parse(id); !parsed) {
    return fail(parsed.error());
  }
  auto& impl = *impl_;
  return impl.store.read([&](store::Sql& sql) -> Result<WhyView> {
    auto decision = is_instance ? store::find_placement_of_instance(sql, id) : store::find_placement(sql, id);
    const std::string what(id);
    if (!decision || !may(who, Deed::see_task, decision->owner)) {
      return fail(ErrorCode::not_found, "there is no decision about " + what +
                                            ": no node was ever chosen for it, or it is long ago");
    }
    WhyView view;
    view.plan = decide(decision->nodes, decision->request, decision->limits);
    if (const auto task = store::find_task(sql, decision->tid)) view.task = impl.engine.view(sql, *task);
    view.decision = std::move(*decision);
    return view;
  });
}

}  // namespace educloud::clc
