# ruff: noqa: UP010, UP031
"""For Python 2.7: the Autobahn fuzzing client. ``fuzzer.py PACKAGES URL FOLDER PATIENCE PATTERN...`` runs the cases
that match; its packages are in the folder PACKAGES. The suite's time limits, 0.5 to 480 s, are multiplied by PATIENCE.

FOLDER gets cases.json, the list of them, and a report of each as it ends. (wstest itself writes all reports at its
end, so a run that is stopped leaves none.) A case whose TCP connection is still there so long after its own time is
cut off, and reported as not closed: wstest would wait for ever.
"""

from __future__ import print_function

import json
import os
import site
import sys

site.addsitedir(sys.argv[1])  # not only PYTHONPATH: the .pth files there matter

from autobahntestsuite import case, fuzzing
from autobahntestsuite.caseset import CaseSet
from twisted.internet import reactor

CUT_OFF_S = 15


Base = fuzzing.FuzzingClientProtocol


class Protocol(Base):
    patience = 1.0

    def killAfter(self, delay):
        Base.killAfter(self, delay * self.patience)

    def closeAfter(self, delay):
        Base.closeAfter(self, delay * self.patience)

    def connectionMade(self):
        Base.connectionMade(self)
        self.factory.cut_off = False
        self._watchdog = reactor.callLater(
            (getattr(self.runCase, "WAITSECS", 0) + CUT_OFF_S) * self.patience, self._bark
        )

    def _bark(self):
        self.factory.cut_off = True
        self.transport.abortConnection()

    def connectionLost(self, reason):
        if self._watchdog.active():
            self._watchdog.cancel()
        Base.connectionLost(self, reason)


class Factory(fuzzing.FuzzingClientFactory):
    cut_off = False

    def logCase(self, result):
        if self.cut_off:
            result["behaviorClose"] = "UNCLEAN"
            result["resultClose"] = "TCP was still open long after the case, and was cut off"
        fuzzing.FuzzingClientFactory.logCase(self, result)
        self.createAgentCaseReportJSON(result["agent"], result["id"], self.outdir)
        print("%-9s %-13s %-13s %6d ms" % (
            result["id"], result["behavior"], result["behaviorClose"], result["duration"],
        ))
        sys.stdout.flush()

    def createReports(self, produceHtml=True, produceJson=True):
        """There are reports already."""


def main(url, folder, patience, *patterns):
    Protocol.patience = float(patience)
    closing_s = Protocol.patience  # 1 s by default
    spec = {
        "servers": [{"agent": "wsthreads", "url": url}],
        "options": {"closeHandshakeTimeout": closing_s, "serverConnectionDropTimeout": closing_s},
        "outdir": folder,
        "cases": list(patterns),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    cases = CaseSet(case.CaseSetname, case.CaseBasename, case.Cases, case.CaseCategories, case.CaseSubCategories)
    chosen = cases.parseSpecCases(spec)
    unknown = [name for name in chosen if name not in cases.CasesById]
    if unknown or not chosen:
        sys.exit("no such case: %s" % " ".join(unknown or patterns))
    with open(os.path.join(folder, "cases.json"), "w") as file:
        json.dump(chosen, file)
    fuzzing.FuzzingClientProtocol = Protocol  # which the factory makes, by this name
    Factory(spec)  # it connects by itself
    reactor.run()


main(*sys.argv[2:])
