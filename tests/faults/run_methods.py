#!/usr/bin/python3
"""Runs methods of one unittest file and tells about each in the form of GTest, so that one reader serves both.

    run_methods.py FILE METHOD...
"""
import importlib.util
import pathlib
import sys
import time
import unittest


class Teller(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.began, self.bad = time.monotonic(), False
        print(f"[ RUN      ] {test._testMethodName}", flush=True)

    def stopTest(self, test):
        took = (time.monotonic() - self.began) * 1000
        print(f"{'[  FAILED  ]' if self.bad else '[       OK ]'} {test._testMethodName} ({took:.0f} ms)", flush=True)
        super().stopTest(test)

    def addError(self, test, err):
        super().addError(test, err)
        self.bad = True
        print(self.errors[-1][1], flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.bad = True
        print(self.failures[-1][1], flush=True)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.bad = True
            print(subtest, (self.errors + self.failures)[-1][1], flush=True)


def main():
    path, wanted = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.TestSuite()
    for case in vars(module).values():
        if isinstance(case, type) and issubclass(case, unittest.TestCase):
            methods = [name for name in unittest.defaultTestLoader.getTestCaseNames(case) if name in wanted]
            # A suite of its own: setUpClass and tearDownClass run once around it.
            suite.addTest(unittest.TestSuite(case(name) for name in methods))
    result = Teller()
    suite.run(result)
    sys.exit(0 if result.wasSuccessful() and result.testsRun == len(wanted) else 1)


if __name__ == "__main__":
    main()
