#!/bin/sh
# Apptainer for hosts that have none: that of the root file system in the folder ../root.
# It runs with that root's programs and settings, and with the host's names and other folders at their own paths, so that
# images and binds mean what they say. The user namespace, which needs all ids mapped, gives root back what it may lack in
# a sandbox.
COMIR_BATCH_APPTAINER=$(readlink -f "$(dirname "$0")/../root")
export COMIR_BATCH_APPTAINER
exec unshare --user --map-users=0,0,65536 --map-groups=0,0,65536 --mount sh -ec '
    here=$PWD
    mount --rbind "$COMIR_BATCH_APPTAINER" "$COMIR_BATCH_APPTAINER"
    cd "$COMIR_BATCH_APPTAINER"
    unset COMIR_BATCH_APPTAINER
    for folder in /*/; do
        case $folder in
            /bin/ | /sbin/ | /lib*/ | /usr/ | /etc/ | /var/ | /run/ | /boot/) ;;
            *) mkdir -p ".$folder" && mount --rbind "$folder" ".$folder" ;;
        esac
    done
    for file in etc/hosts etc/resolv.conf; do touch "$file" && mount --bind "/$file" "$file"; done
    /usr/sbin/pivot_root . boot
    umount --lazy /boot
    cd "$here" 2>/dev/null || cd /
    exec /usr/bin/apptainer "$@"' apptainer "$@"
