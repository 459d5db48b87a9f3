#!/usr/bin/env bash
# shellcheck disable=SC2034 # exlb reads them
# Backends by name, a mere TCP check, and another way to balance.
NODE_IPS=(198.51.100.11 198.51.100.12)
VIP_IF=eth0
MASTER_VIP=198.51.100.100
APISERVER_IPS=(api-1.example.org api-2.example.org 198.51.100.23)
APISERVER_NAMES=(first second third)
APISERVER_SRC_PORT=443
APISERVER_DEST_PORT=6443
HEALTH_CHECK=tcp
BALANCE=leastconn
