// The vault of the key ring, read by the app through references and by nobody else.

@minLength(3)
@maxLength(24)
@description('Name of the vault.')
param name string

@description('Azure region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Reachable through private endpoints alone.')
param isPrivate bool

@description('Deleted vaults can not be removed before their time.')
param purgeProtection bool

@secure()
@description('The first key ring. Empty: the vault has one already, or will be given one by hand.')
param keyRing string

@description('The workspace for the audit log.')
param workspaceId string

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: purgeProtection ? 90 : 7
    enablePurgeProtection: purgeProtection ? true : null
    enabledForDeployment: false
    enabledForDiskEncryption: false
    enabledForTemplateDeployment: false
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      bypass: 'AzureServices'
    }
  }
}

// Replacing the ring would lock every stored secret away: the hook gives none when the vault has one, and this skips
// what exists. A version that is replaced all the same stays in the vault.
@onlyIfNotExists()
resource ring 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = if (!empty(keyRing)) {
  parent: vault
  name: 'key-ring'
  properties: {
    value: keyRing
    contentType: 'Graphpost KEY_RING: name:base64, newest first'
  }
}

resource audit 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

@description('Resource id.')
output id string = vault.id

@description('Name of the vault.')
output name string = vault.name

@description('Where references to secrets begin; no secret itself.')
output secretsUrl string = '${vault.properties.vaultUri}secrets/'
