#!/usr/bin/env bash
# shellcheck disable=SC2034 # exlb reads them
# A password with every sign that means something to bash, to haproxy or to a template, and one of two bytes.
NODE_IPS=(198.51.100.11 198.51.100.12)
VIP_IF=eth0
MASTER_VIP=198.51.100.100
STATS_USER=ops@example.org
STATS_PASSWORD=$'two words "quoted" \'single\' #hash $HOME %[env(x)] {{ brace }} \\ \u00e9'
