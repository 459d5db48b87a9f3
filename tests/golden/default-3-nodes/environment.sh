#!/usr/bin/env bash
# shellcheck disable=SC2034 # exlb reads them
# The three required lines, and nothing else.
NODE_IPS=(198.51.100.11 198.51.100.12 198.51.100.13)
VIP_IF=eth0
MASTER_VIP=198.51.100.100
