"""What bears on a machine's timings (processor, governor, temperature, throttling, load), read by a shell script."""

from __future__ import annotations

# a POSIX shell and /sys are all that a board must have; each line that cannot be read is left out
SCRIPT = r"""
say() { [ -n "$2" ] && printf '%s=%s\n' "$1" "$2"; }
first() { head -n 1 "$1" 2>/dev/null | tr -d '\000'; }
cpu=/sys/devices/system/cpu
say board "$(first /proc/device-tree/model)"
say cpu "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
say cpu_part "$(sed -n 's/^CPU part[^:]*: //p' /proc/cpuinfo | head -n 1)"
say kernel "$(uname -srm)"
say cores "$(grep -c '^processor' /proc/cpuinfo)"
say governor "$(first $cpu/cpu0/cpufreq/scaling_governor)"
say clock_khz "$(first $cpu/cpu0/cpufreq/scaling_cur_freq)"
say max_clock_khz "$(first $cpu/cpu0/cpufreq/scaling_max_freq)"
say clock_mhz "$(sed -n 's/^cpu MHz[^:]*: //p' /proc/cpuinfo | head -n 1)"
say temperature_millicelsius "$(first /sys/class/thermal/thermal_zone0/temp)"
say core_throttle_count "$(first $cpu/cpu0/thermal_throttle/core_throttle_count)"
say throttled "$(vcgencmd get_throttled 2>/dev/null | sed 's/^throttled=//')"
say load_average "$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null)"
:
"""


def parse_state(text: str) -> dict[str, str]:
    """What the script printed; keys that the machine does not have are absent."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key: value.strip() for key, value in pairs}
