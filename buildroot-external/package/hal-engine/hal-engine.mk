################################################################################
#
# hal-engine
#
################################################################################

HAL_ENGINE_VERSION = 0.1.0
HAL_ENGINE_SITE = $(BR2_EXTERNAL_HAL_PATH)/services
HAL_ENGINE_SITE_METHOD = local
HAL_ENGINE_LICENSE = Apache-2.0
HAL_ENGINE_LICENSE_FILES = LICENSE
HAL_ENGINE_DEPENDENCIES = hal-os hal-selector host-python3

# The licence is the whole project's and lies beside the services.
define HAL_ENGINE_COPY_LICENSE
	cp $(BR2_EXTERNAL_HAL_PATH)/LICENSE $(@D)/LICENSE
endef
HAL_ENGINE_POST_RSYNC_HOOKS += HAL_ENGINE_COPY_LICENSE

# A spec with an engine that tells systemd itself has no hal-engine program.
define HAL_ENGINE_INSTALL_TARGET_CMDS
	$(call hal-install-services,$(@D),engine vllm)
	$(call hal-install-rendered,usr/bin/hal-engine?)
endef

define HAL_ENGINE_PERMISSIONS
	/usr/bin/hal-engine F 755 0 0 - - - - -
	/usr/lib/hal/services/engine r -1 0 0 - - - - -
endef

$(eval $(generic-package))
