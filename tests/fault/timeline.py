"""timeline.py FOLDER TURN: what the roles' logs in the folder say of one turn, and meanwhile of the chat's other turns (it may wait for one)
and of the processes' connections, in the order of time.
With TROUPE_LOG_LEVEL=debug they say the most.  cluster_run.py --explain prints it of the slowest turn of a fault."""
import datetime
import glob
import os
import re
import sys

CONTEXT = re.compile(r"level=(warn|error)|ev=\S*(lost|connected|unreached|gap|fence|drain|ready|stuck|regist)\S*")
OFTEN = re.compile(r"ev=\S+( (host|store|what|topic|queue|gateway)=\S+)?")  # what makes two lines alike


def seconds(line):
    return datetime.datetime.strptime(line[3:27], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()


def lines(folder, turn, start=None, end=None):
    """[(time, process, line)] between start and end (default: the turn's first and last line)."""
    found, chat = [], None
    for path in glob.glob(os.path.join(folder, "*.log")):
        name = os.path.basename(path)[:-4]
        with open(path, errors="replace") as f:
            for line in f:
                if not line.startswith("ts="):
                    continue
                mine = turn in line
                if mine and chat is None and (told := re.search(r"chat=(\S+)", line)):
                    chat = told.group(1)
                if mine or "chat=" in line or CONTEXT.search(line):
                    found.append((line[3:27], name, line, mine))
    found = [(seconds(line), name, line, mine) for _, name, line, mine in found if mine or CONTEXT.search(line) or (chat and chat in line)]
    start = min((at for at, _, _, mine in found if mine), default=0) if start is None else start
    end = max((at for at, _, _, mine in found if mine), default=0) if end is None else end
    return sorted(f for f in found if f[3] or start <= f[0] <= end)


def tell(folder, turn, start=None, end=None, zero=None, most=60):
    found = lines(folder, turn, start, end)
    zero = found[0][0] if zero is None and found else zero
    alike, shown = {}, []
    for at, name, line, mine in found:  # of lines that a process repeats, the first one and the last
        key = (name, OFTEN.search(line).group(0)) if "trace=" not in line else (at, line)
        if key in alike and len(alike[key]) > 1:
            shown.remove(alike[key].pop())
        alike.setdefault(key, []).append((at, name, line))
        shown.append(alike[key][-1])
    for at, name, line in shown[:most]:
        print("  %s %+8.3f %-13s %s" % ("*" if turn in line else " ", at - zero, name, re.sub(r"chat=\S+ |level=debug ", "", line[28:].strip())[:200]))
    if len(shown) < len(found) or len(shown) > most:
        print("    … and %d lines more" % (len(found) - min(len(shown), most)))


if __name__ == "__main__":
    tell(sys.argv[1], sys.argv[2], most=1000)
