#include "clc/api/context.hpp"
#include "clc/api/requests.hpp"
#include "clc/app/event_hub.hpp"

namespace educloud::clc::api {
namespace {

std::string query_value(const http::Request& request, const char* key) {
  const auto at = request.query.find(key);
  return at == request.query.end() ? std::string() : at->second;
}

http::Response cancel_task(Context& c, const Principal& who, const http::Request& request) {
  auto force = force_asked(request);
  if (!force) return http::error_response(force.error());
  return answer(c.cloud.cancel_task(who, request.param("tid"), *force), 202);
}

http::Response submit_task(Context& c, const Principal& who, const http::Request& request) {
  return with_body<SubmitBody>(request, [&](const SubmitBody& body) {
    return answer(c.cloud.submit_task(who, request.param("tid"), body.on_conflict == "replace"), 202);
  });
}

http::Response list_tasks(Context& c, const Principal& who, const http::Request& request) {
  auto page = page_request(request);
  if (!page) return http::error_response(page.error());
  TaskFilter filter;
  const std::string open = query_value(request, "open");
  if (!open.empty() && open != "true" && open != "false") {
    return http::error_response(Error{ErrorCode::invalid_argument, "'open' is true or false", "open"});
  }
  filter.open_only = open == "true";
  filter.insid = query_value(request, "insid");
  filter.imgid = query_value(request, "imgid");
  return answer(c.cloud.tasks(who, *page, filter));
}

http::Response subscribe(Context& c, const Principal& who, const http::Request& request) {
  const std::string tid = query_value(request, "tid");
  if (!tid.empty()) {
    // The right to the task, and its existence, before a stream that would stay silent for ever.
    if (auto task = c.cloud.task(who, tid); !task) return http::error_response(task.error());
  }
  auto stream = c.cloud.events().subscribe(who, tid, request.header("Last-Event-ID"));
  if (!stream) return http::error_response(stream.error());
  http::Response response;
  response.body = *stream;
  return response;
}

using TaskCall = Result<TaskView> (Cloud::*)(const Principal&, std::string_view);

Handler on_task(TaskCall call, int status) {
  return [call, status](Context& c, const Principal& who, const http::Request& request) {
    return answer((c.cloud.*call)(who, request.param("tid")), status);
  };
}

}  // namespace

void add_task_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/tasks", list_tasks);
  add(router, context, "GET", "/tasks/{tid}", on_task(&Cloud::task, 200));
  add(router, context, "GET", "/tasks/{tid}/why",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.why(who, request.param("tid")));
      });
  add(router, context, "DELETE", "/tasks/{tid}", cancel_task);
  add(router, context, "POST", "/tasks/{tid}/submit", submit_task);
  add(router, context, "POST", "/tasks/{tid}/start", on_task(&Cloud::start_task, 202));
  add(router, context, "POST", "/tasks/{tid}/stop", on_task(&Cloud::stop_task, 202));
  // Where the file of an import goes, again: for a client that comes back to continue.
  add(router, context, "GET", "/tasks/{tid}/upload",
      [](Context& c, const Principal& who, const http::Request& request) {
        return answer(c.cloud.upload_target(who, request.param("tid")));
      });
  add(router, context, "GET", "/events", subscribe);
}

}  // namespace educloud::clc::api
