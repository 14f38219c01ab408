#include "control/driver.hpp"

#include <cstdlib>
#include <iostream>

#include "common/http/server.hpp"
#include "common/obs/log.hpp"
#include "common/sys/signals.hpp"

namespace educloud::bench {

http::Headers Api::headers() const {
  return {{"Authorization", "Bearer " + token}};
}

void say(const nlohmann::json& news) {
  std::cout << news.dump() << std::endl;
}

double seconds_between(Instant from, Instant to) {
  return std::chrono::duration<double>(to - from).count();
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto last = static_cast<double>(values.size() - 1);
  return values[static_cast<std::size_t>(last * share + 0.5)];
}

Result<> serve_bytes(const Words& words) {
  http::ServerOptions options;
  options.address = words.at(0);
  options.threads = 12;  // as clc
  const std::string body(std::stoul(words.at(1)), 'x');
  http::Router router;
  router.add({.method = "GET", .pattern = "/bytes", .handler = [body](const http::Request&) {
                http::Response response;
                response.body = body;
                return response;
              }});
  http::Server server(options, std::move(router));
  if (auto ok = server.start(); !ok) return ok;
  say({{"port", server.port()}});
  for (std::string line; std::getline(std::cin, line);) continue;
  server.stop();
  return {};
}

namespace {

Result<> run(const std::string& verb, const Words& words) {
  if (verb == "limit") return limit(words);
  if (verb == "serve") return serve_bytes(words);
  auto url = http::Url::parse(words.at(0));
  if (!url) return fail(url.error());
  const char* token = std::getenv("EDUCLOUD_BENCH_TOKEN");
  const Api api{*url, token != nullptr ? token : ""};
  const Words rest(words.begin() + 1, words.end());
  if (verb == "lifecycles") return lifecycles(api, rest);
  if (verb == "reads") return reads(api, rest);
  return fail(ErrorCode::invalid_argument, "there is no part " + verb);
}

}  // namespace
}  // namespace educloud::bench

int main(int argc, char** argv) {
  educloud::obs::init_log("bench", "warn");
  try {
    const educloud::bench::Words words(argv + std::min(argc, 2), argv + argc);
    auto done = educloud::bench::run(argc > 1 ? argv[1] : "", words);
    if (done) return 0;
    std::cerr << "bench_control: " << done.error().message << "\n";
  } catch (const std::exception& error) {
    std::cerr << "bench_control: " << error.what() << "\n";
  }
  return 1;
}
