"""Name installed packages that have known holes: a step of CI.

    python tools/audit_dependencies.py

Asks the advisory database of PyPI through pip-audit. Where that cannot be reached, or knows none of
the packages, the step is skipped and says so. Exit code 1 if a package has a hole.
"""

import json
import subprocess
import sys

SECONDS = 120


def audited() -> list[dict]:
    """What pip-audit says of every installed package; empty where it cannot say anything."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return [package for package in packages if "skip_reason" not in package]


def main() -> int:
    """Run it and print a line per hole."""
    packages = audited()
    if not packages:
        print("audit of dependencies skipped: no advisory database can be reached from here")
        return 0
    holes = [(package, hole) for package in packages for hole in package["vulns"]]
    for package, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}")
    print(f"{len(packages)} packages audited, {len(holes)} known holes")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
