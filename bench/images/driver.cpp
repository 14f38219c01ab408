#include "images/driver.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iostream>

#include "common/http/server.hpp"

namespace educloud::bench {

std::string data_key() {
  const char* key = std::getenv("EDUCLOUD_BENCH_KEY");
  return key != nullptr ? key : "";
}

void say(const nlohmann::json& news) {
  std::cout << news.dump() << std::endl;
}

void wait_for_end_of_input() {
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) > 0) continue;
}

Result<> serve(http::Router router, const std::string& address, const std::string& port) {
  http::ServerOptions options;
  options.address = address;
  options.port = std::stoi(port);
  http::Server server(options, std::move(router));
  if (auto ok = server.start(); !ok) return ok;
  wait_for_end_of_input();
  server.stop();
  return {};
}

namespace {

/// What this process used: CPU seconds of all its threads, and the most memory it held at once.
nlohmann::json used() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return {{"cpu_s", seconds(usage.ru_utime) + seconds(usage.ru_stime)},
          {"rss_mib", static_cast<double>(usage.ru_maxrss) / 1024}};
}

int run(int argc, char** argv) {
  using Part = Result<> (*)(const Words&);
  struct Entry {
    std::string_view name;
    std::size_t least_words;
    Part part;
  };
  constexpr Entry kParts[] = {{"import", 4, import_disk},
                              {"walrus", 3, serve_walrus},
                              {"cc", 5, serve_cc},
                              {"fill", 8, fill},
                              {"submit", 7, submit}};
  const Words words(argv + std::min(argc, 2), argv + argc);
  for (const auto& [name, least_words, part] : kParts) {
    if (argc < 2 || argv[1] != name || words.size() < least_words) continue;
    if (auto ok = part(words); !ok) {
      std::cerr << "bench_images " << name << ": " << ok.error().message << "\n";
      return 1;
    }
    if (name != "import" && name != "submit") say(used());
    return 0;
  }
  std::cerr << "usage: see images/driver.hpp; scripts/bench images runs it\n";
  return 2;
}

}  // namespace
}  // namespace educloud::bench

int main(int argc, char** argv) {
  return educloud::bench::run(argc, argv);
}
