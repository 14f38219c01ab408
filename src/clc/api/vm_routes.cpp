#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"
#include "common/http/client.hpp"

namespace educloud::clc::api {
namespace {

/// One place of the bounded number of requests that wait for another host.
class Place {
 public:
  Place(std::atomic<int>& taken, int limit) : taken_(taken), has_(taken.fetch_add(1) < limit) {}
  ~Place() { taken_.fetch_sub(1); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  explicit operator bool() const { return has_; }

 private:
  std::atomic<int>& taken_;
  bool has_;
};

/// Fetches a file of an instance from its node, through its cc. Its content is the guest's own: nothing in it
/// is interpreted here, and the type we give it is fixed by what was asked for.
http::Response instance_file(Context& c, const Principal& who, const http::Request& request,
                             std::string_view what, const char* content_type) {
  auto file = c.cloud.instance_file(who, request.param("insid"), what);
  if (!file) return http::error_response(file.error());
  auto base = http::Url::parse(file->base_url);
  if (!base) return http::error_response(base.error());
  const Place place(c.proxied, c.options.proxy_limit);
  if (!place) {
    return http::error_response(
        Error{ErrorCode::unavailable, "too many console and screenshot requests at once: try again"});
  }
  http::ClientOptions options;
  options.io_timeout = c.options.proxy_deadline;
  options.connect_timeout = std::min(options.connect_timeout, c.options.proxy_deadline);
  options.body_limit = c.options.proxy_body_limit;
  http::Client client(*base, options);
  http::ClientRequest out;
  out.target = file->target;
  auto got = client.send(out);
  if (!got) return http::error_response(got.error());
  if (auto ok = got->ok(); !ok) return http::error_response(ok.error());
  http::Response response;
  response.headers["Content-Type"] = content_type;
  response.body = std::move(got->body);
  return response;
}

std::string cache_key(const Principal& who, std::string_view what) {
  return who.account + (who.admin ? " admin " : " user ") + std::string(what);
}

http::Response list_vms(Context& c, const Principal& who, const http::Request& request) {
  auto page = page_request(request);
  if (!page) return http::error_response(page.error());
  const auto key = cache_key(who, "page " + std::to_string(page->limit) + " " + page->cursor);
  return c.vms.answer(key, c.cloud.changes(), [&] { return answer(c.cloud.vms(who, *page)); });
}

http::Response show_vm(Context& c, const Principal& who, const http::Request& request) {
  const auto& insid = request.param("insid");
  return c.vms.answer(cache_key(who, insid), c.cloud.changes(),
                      [&] { return answer(c.cloud.vm(who, insid)); });
}

http::Response define_vm(Context& c, const Principal& who, const http::Request& request) {
  return with_body<VmBody>(request, [&](VmBody body) {
    body.first_boot = {body.hostname, body.user, body.ssh_key, body.password};
    return answer(c.cloud.define_vm(who, body), 201);
  });
}

http::Response change_vm(Context& c, const Principal& who, const http::Request& request) {
  return with_body<VmChangeBody>(request, [&](const VmChangeBody& body) {
    return answer(c.cloud.change_vm(who, request.param("insid"), body));
  });
}

}  // namespace

void add_vm_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/vms", list_vms);
  add(router, context, "POST", "/vms", define_vm);
  add(router, context, "GET", "/vms/{insid}", show_vm);
  add(router, context, "PATCH", "/vms/{insid}", change_vm);
  add(router, context, "DELETE", "/vms/{insid}",
      [](Context& c, const Principal& who, const http::Request& request) {
        auto force = force_asked(request);
        if (!force) return http::error_response(force.error());
        return answer(c.cloud.delete_vm(who, request.param("insid"), *force), 202);
      });
  add(router, context, "POST", "/vms/{insid}/run",
      [](Context& c, const Principal& who, const http::Request& request) {
        return with_body<RunBody>(request, [&](const RunBody& body) {
          return answer(c.cloud.run_vm(who, request.param("insid"), body.lazy), 202);
        });
      });
  add(router, context, "POST", "/vms/{insid}/stop",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.stop_vm(who, request.param("insid")), 202);
      });
  add(router, context, "GET", "/vms/{insid}/console",
      [](Context& c, const Principal& who, const http::Request& request) {
        return instance_file(c, who, request, "console", "application/octet-stream");
      });
  add(router, context, "GET", "/vms/{insid}/screenshot",
      [](Context& c, const Principal& who, const http::Request& request) {
        return instance_file(c, who, request, "screenshot", "image/png");
      });
}

}  // namespace educloud::clc::api
