#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"

namespace educloud::clc::api {
namespace {

void add_operation(http::Router& router, const Shared& context, VmOperation operation) {
  add(router, context, "POST", "/vms/{insid}/" + std::string(to_string(operation)),
      [operation](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.operate_vm(who, request.param("insid"), operation), 202);
      });
}

http::Response limit_vm(Context& c, const Principal& who, const http::Request& request) {
  return with_body<LimitsBody>(request, [&](const LimitsBody& body) {
    return answer(c.cloud.limit_vm(who, request.param("insid"), body), 202);
  });
}

http::Response move_vm(Context& c, const Principal& who, const http::Request& request) {
  return with_body<MoveBody>(request, [&](const MoveBody& body) {
    return answer(c.cloud.move_vm(who, request.param("insid"), body.node), 202);
  });
}

http::Response take_snapshot(Context& c, const Principal& who, const http::Request& request) {
  return with_body<SnapshotBody>(request, [&](const SnapshotBody& body) {
    return answer(c.cloud.take_snapshot(who, request.param("insid"), body), 202);
  });
}

}  // namespace

void add_operation_routes(http::Router& router, const Shared& context) {
  add_operation(router, context, VmOperation::pause);
  add_operation(router, context, VmOperation::resume);
  add_operation(router, context, VmOperation::restart);
  add(router, context, "POST", "/vms/{insid}/migrate", move_vm);
  add(router, context, "PATCH", "/vms/{insid}/limits", limit_vm);
  add(router, context, "GET", "/vms/{insid}/snapshots",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.snapshots(who, request.param("insid")));
      });
  add(router, context, "POST", "/vms/{insid}/snapshots", take_snapshot);
  add(router, context, "POST", "/vms/{insid}/snapshots/{snapid}/restore",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.restore_snapshot(who, request.param("insid"), request.param("snapid")), 202);
      });
  add(router, context, "DELETE", "/vms/{insid}/snapshots/{snapid}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.delete_snapshot(who, request.param("insid"), request.param("snapid")), 202);
      });
}

}  // namespace educloud::clc::api
