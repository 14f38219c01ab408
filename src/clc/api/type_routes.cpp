#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"

namespace educloud::clc::api {
namespace {

http::Response put_vmtype(Context& c, const Principal& who, const http::Request& request) {
  return with_body<VmTypeBody>(request, [&](const VmTypeBody& body) {
    return answer(c.cloud.put_vmtype(who, {request.param("name"), body.memory_mib, body.cpus, body.limits}));
  });
}

http::Response put_ostype(Context& c, const Principal& who, const http::Request& request) {
  return with_body<OsTypeBody>(request, [&](const OsTypeBody& body) {
    return answer(
        c.cloud.put_ostype(who, {request.param("name"), body.disk, body.nic, body.sound, body.folders}));
  });
}

http::Response change_vmtype(Context& c, const Principal& who, const http::Request& request) {
  return with_body<VmTypeChangeBody>(request, [&](const VmTypeChangeBody& body) {
    return answer(c.cloud.change_vmtype(who, request.param("name"), body.change()));
  });
}

http::Response change_ostype(Context& c, const Principal& who, const http::Request& request) {
  return with_body<OsTypeChangeBody>(request, [&](const OsTypeChangeBody& body) {
    return answer(c.cloud.change_ostype(who, request.param("name"), body));
  });
}

}  // namespace

void add_type_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/vmtypes",
      [](Context& c, const Principal& who, const http::Request&) { return answer(c.cloud.vmtypes(who)); });
  add(router, context, "GET", "/vmtypes/{name}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.vmtype(who, request.param("name")));
      });
  add(router, context, "PUT", "/vmtypes/{name}", put_vmtype);
  add(router, context, "PATCH", "/vmtypes/{name}", change_vmtype);
  add(router, context, "DELETE", "/vmtypes/{name}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.delete_vmtype(who, request.param("name")));
      });
  add(router, context, "GET", "/ostypes",
      [](Context& c, const Principal& who, const http::Request&) { return answer(c.cloud.ostypes(who)); });
  add(router, context, "GET", "/ostypes/{name}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.ostype(who, request.param("name")));
      });
  add(router, context, "PUT", "/ostypes/{name}", put_ostype);
  add(router, context, "PATCH", "/ostypes/{name}", change_ostype);
  add(router, context, "DELETE", "/ostypes/{name}",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.delete_ostype(who, request.param("name")));
      });
}

}  // namespace educloud::clc::api
