"""Starts an engine that says nothing to the init system, and says it in its place.

`hal-engine NAME` reads /etc/hal/engines/NAME.json and checks what the engine cannot run without (device
nodes, the model), each with a message of its own. Then it starts the engine as its child, waits until health
is good and every model is listed, and tells systemd and the selector. It ends as the engine ends, with the
engine's status; whoever started it, systemd or an init script, starts it again and ends what is left.

config.py reads the file; checks.py looks before the start; answers.py asks over loopback; child.py is a
process of the engine; models.py makes models known to engines that bind them at run time; report.py tells
systemd, the selector and the log; launcher.py is the order of it all. Nothing here sees a request or an
answer. Imports are few: start-up counts where the CPU is emulated.
"""
