#!/bin/sh
# Ends all jobs of the run in @{title}: sh cancel.sh
#
# Written by comir-batch render. The driver stops in order; submit.sh resumes the run.
exec scancel --user="$(id -un)" --name=@{job_name}
