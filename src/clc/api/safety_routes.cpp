#include <charconv>

#include "clc/api/context.hpp"
#include "clc/app/safety.hpp"

namespace educloud::clc::api {
namespace {

Result<std::int64_t> letter_id(const http::Request& request) {
  const std::string& text = request.param("id");
  std::int64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error == std::errc{} && end == text.data() + text.size() && id > 0) return id;
  return fail(ErrorCode::invalid_argument, "a dead letter's id is a number from 1", "id");
}

http::Response list_letters(Context& c, const Principal& who, const http::Request& request) {
  auto page = page_request(request);
  if (!page) return http::error_response(page.error());
  return answer(c.cloud.safety().dead_letters(who, *page));
}

http::Response show_letter(Context& c, const Principal& who, const http::Request& request) {
  auto id = letter_id(request);
  if (!id) return http::error_response(id.error());
  auto letter = c.cloud.safety().dead_letter(who, *id);
  return letter ? http::json_response(to_json(*letter, true)) : http::error_response(letter.error());
}

http::Response retry_letter(Context& c, const Principal& who, const http::Request& request) {
  auto id = letter_id(request);
  if (!id) return http::error_response(id.error());
  return answer(c.cloud.safety().retry_dead_letter(who, *id));
}

http::Response drop_letter(Context& c, const Principal& who, const http::Request& request) {
  auto id = letter_id(request);
  if (!id) return http::error_response(id.error());
  return answer(c.cloud.safety().drop_dead_letter(who, *id));
}

}  // namespace

void add_safety_routes(http::Router& router, const Shared& context) {
  add(router, context, "GET", "/dead-letters", list_letters);
  add(router, context, "DELETE", "/dead-letters", [](Context& c, const Principal& who, const http::Request&) {
    return answer(c.cloud.safety().drop_dead_letters(who));
  });
  add(router, context, "GET", "/dead-letters/{id}", show_letter);
  add(router, context, "DELETE", "/dead-letters/{id}", drop_letter);
  add(router, context, "POST", "/dead-letters/{id}/retry", retry_letter);
  add(router, context, "GET", "/backups", [](Context& c, const Principal& who, const http::Request&) {
    return answer(c.cloud.safety().backups(who));
  });
  add(router, context, "POST", "/backups", [](Context& c, const Principal& who, const http::Request&) {
    return answer(c.cloud.safety().back_up(who), 201);
  });
}

}  // namespace educloud::clc::api
